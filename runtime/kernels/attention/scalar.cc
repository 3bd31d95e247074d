#include "attention/loops.h"

namespace hc {

extern const Attention attention_scalar = attention_loops<PlainTranspose, PlainProduct>;

} // namespace hc
