// pshufb counts the bits of 64 half bytes at once.
#include <immintrin.h>

#include "wide/loops.h"

namespace hc {
namespace {

constexpr size_t kLanes = 64;

HC_INLINE void near_lanes(const uint8_t* sketches, size_t pitch, const uint8_t* sketch, size_t bytes,
                          const uint8_t* limit, uint8_t* near) {
    const __m512i bits_of = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
    const __m512i low = _mm512_set1_epi8(15);
    __m512i distance = _mm512_setzero_si512();
    for (size_t b = 0; b < bytes; ++b, sketches += pitch) {
        const __m512i differ =
            _mm512_xor_si512(_mm512_loadu_si512(sketches), _mm512_set1_epi8(static_cast<char>(sketch[b])));
        const __m512i high = _mm512_and_si512(_mm512_srli_epi16(differ, 4), low);
        distance = _mm512_adds_epu8(distance,
                                    _mm512_add_epi8(_mm512_shuffle_epi8(bits_of, _mm512_and_si512(differ, low)),
                                                    _mm512_shuffle_epi8(bits_of, high)));
    }
    const __mmask64 within = _mm512_cmple_epu8_mask(distance, _mm512_loadu_si512(limit));
    _mm512_storeu_si512(near, _mm512_maskz_set1_epi8(within, 1));
}

} // namespace

extern const Wide wide_avx512 = {project, near_by<kLanes, near_lanes>, products, coded_products};

} // namespace hc
