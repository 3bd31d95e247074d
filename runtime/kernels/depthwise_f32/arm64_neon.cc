#include "depthwise_f32/loops.h"
#include "vector_f32.h"

namespace hc {

extern const DepthwiseF32 depthwise_f32_neon = depthwise<Quad, 4, 4>;

} // namespace hc
