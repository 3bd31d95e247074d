#include <arm_neon.h>

#include "depthwise_f32/loops.h"

namespace hc {
namespace {

struct Vector {
    using Type = float32x4_t;
    static constexpr int lanes = 4;
    static HC_INLINE Type zero() { return vdupq_n_f32(0); }
    static HC_INLINE Type load(const float* from) { return vld1q_f32(from); }
    static HC_INLINE Type fused(Type a, Type b, Type c) { return vfmaq_f32(c, a, b); }
    static HC_INLINE void store(float* to, Type a) { vst1q_f32(to, a); }
};

} // namespace

extern const DepthwiseF32 depthwise_f32_neon = depthwise<Vector, 4, 4>;

} // namespace hc
