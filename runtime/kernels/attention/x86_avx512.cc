#include <immintrin.h>

#include "attention/loops.h"
#include "vector_f32.h"
#include "x86_transpose.h"

namespace hc {
namespace {

HC_INLINE __mmask16 first_lanes(size_t count) { return static_cast<__mmask16>(count < 16 ? (1u << count) - 1 : 0xFFFF); }

// Squares of 16 x 16; what lies outside is neither read nor written.
struct SquareTranspose {
    static void to_columns(const float* from, size_t pitch, int count, size_t size, float scale, float* to) {
        const __m512 factor = _mm512_set1_ps(scale);
        for (int first = 0; first < kPair; first += 16)
            for (size_t d = 0; d < size; d += 16) {
                const __mmask16 kept = first_lanes(size - d);
                __m512 r[16];
                unroll<16>([&](auto n) HC_LAMBDA {
                    r[n.value] = first + n.value < count
                                     ? _mm512_maskz_loadu_ps(kept, from + (first + n.value) * pitch + d)
                                     : _mm512_setzero_ps();
                });
                transpose(r);
                unroll<16>([&](auto i) HC_LAMBDA {
                    if (d + i.value < size)
                        _mm512_storeu_ps(to + (d + i.value) * kPair + first, _mm512_mul_ps(r[i.value], factor));
                });
            }
    }

    static void to_rows(const float* from, const float* scale, int count, size_t size, float* to, size_t pitch) {
        for (int first = 0; first < count; first += 16) {
            const __m512 factor = _mm512_loadu_ps(scale + first);
            for (size_t d = 0; d < size; d += 16) {
                const __mmask16 kept = first_lanes(size - d);
                __m512 r[16];
                unroll<16>([&](auto i) HC_LAMBDA {
                    r[i.value] = d + i.value < size
                                     ? _mm512_mul_ps(_mm512_loadu_ps(from + (d + i.value) * kPair + first), factor)
                                     : _mm512_setzero_ps();
                });
                transpose(r);
                unroll<16>([&](auto n) HC_LAMBDA {
                    if (first + n.value < count)
                        _mm512_mask_storeu_ps(to + (first + n.value) * pitch + d, kept, r[n.value]);
                });
            }
        }
    }
};

} // namespace

extern const Attention attention_avx512 = attention_loops<SquareTranspose, RegisterProduct<Zmm, 8, 2>>;

} // namespace hc
