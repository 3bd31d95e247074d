#include <immintrin.h>

#include "attention/loops.h"

namespace hc {
namespace {

struct Ymm {
    using type = __m256;
    static constexpr int width = 8;
    static HC_INLINE type zero() { return _mm256_setzero_ps(); }
    static HC_INLINE type load(const float* from) { return _mm256_loadu_ps(from); }
    static HC_INLINE type broadcast(const float* from) { return _mm256_broadcast_ss(from); }
    static HC_INLINE type add_product(type sum, type a, type b) { return _mm256_fmadd_ps(a, b, sum); }
    static HC_INLINE void store(float* to, type v) { _mm256_storeu_ps(to, v); }
};

} // namespace

extern const Attention attention_avx2 = attention_loops<PlainTranspose, RegisterProduct<Ymm, 4, 2>>;

} // namespace hc
