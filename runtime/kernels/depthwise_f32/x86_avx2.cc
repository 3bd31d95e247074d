#include "depthwise_f32/loops.h"
#include "vector_f32.h"

namespace hc {

extern const DepthwiseF32 depthwise_f32_avx2 = depthwise<Ymm, 4, 2>;

} // namespace hc
