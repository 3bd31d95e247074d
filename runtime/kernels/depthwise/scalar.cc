#include "depthwise/loops.h"

namespace hc {

extern const Depthwise depthwise_scalar = depthwise;

} // namespace hc
