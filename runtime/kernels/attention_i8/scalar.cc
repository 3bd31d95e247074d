#include "attention_i8/loops.h"

namespace hc {

extern const AttentionI8 attention_i8_scalar = attention_i8_loops;

} // namespace hc
