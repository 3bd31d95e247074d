#include "depthwise/loops.h"

namespace hc {

extern const Depthwise depthwise_avx2 = depthwise;

} // namespace hc
