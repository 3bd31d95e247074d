#include <arm_neon.h>

#include "hashed_f32/loops.h"

namespace hc {
namespace {

struct Vector {
    using Type = float32x4_t;
    static constexpr int lanes = 4;
    static HC_INLINE Type zero() { return vdupq_n_f32(0); }
    static HC_INLINE Type load(const float* from) { return vld1q_f32(from); }
    static HC_INLINE Type broadcast(const float* from) { return vld1q_dup_f32(from); }
    static HC_INLINE Type fused(Type a, Type b, Type c) { return vfmaq_f32(c, a, b); }
    static HC_INLINE Type sum(Type a, Type b) { return vaddq_f32(a, b); }
    static HC_INLINE void store(float* to, Type a) { vst1q_f32(to, a); }
};

void multiply(const HashedCall& call) { multiply_all<Vector, kHashedRows / 2>(call); }

} // namespace

extern const HashedF32 hashed_f32_neon = multiply;

} // namespace hc
