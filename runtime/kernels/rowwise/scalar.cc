#include "rowwise/loops.h"

namespace hc {

extern const Rowwise rowwise_scalar = plain_loops;

}  // namespace hc
