#include <immintrin.h>

#include "depthwise_f32/loops.h"

namespace hc {
namespace {

struct Vector {
    using Type = __m256;
    static constexpr int lanes = 8;
    static HC_INLINE Type zero() { return _mm256_setzero_ps(); }
    static HC_INLINE Type load(const float* from) { return _mm256_loadu_ps(from); }
    static HC_INLINE Type fused(Type a, Type b, Type c) { return _mm256_fmadd_ps(a, b, c); }
    static HC_INLINE void store(float* to, Type a) { _mm256_storeu_ps(to, a); }
};

} // namespace

extern const DepthwiseF32 depthwise_f32_avx2 = depthwise<Vector, 4, 2>;

} // namespace hc
