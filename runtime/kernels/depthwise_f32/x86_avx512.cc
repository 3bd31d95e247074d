#include <immintrin.h>

#include "depthwise_f32/loops.h"

namespace hc {
namespace {

struct Vector {
    using Type = __m512;
    static constexpr int lanes = 16;
    static HC_INLINE Type zero() { return _mm512_setzero_ps(); }
    static HC_INLINE Type load(const float* from) { return _mm512_loadu_ps(from); }
    static HC_INLINE Type fused(Type a, Type b, Type c) { return _mm512_fmadd_ps(a, b, c); }
    static HC_INLINE void store(float* to, Type a) { _mm512_storeu_ps(to, a); }
};

} // namespace

extern const DepthwiseF32 depthwise_f32_avx512 = depthwise<Vector, 4, 2>;

} // namespace hc
