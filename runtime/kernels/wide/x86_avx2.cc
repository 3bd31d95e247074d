// pshufb counts the bits of 32 half bytes at once.
#include <immintrin.h>

#include "wide/loops.h"

namespace hc {
namespace {

constexpr size_t kLanes = 32;

HC_INLINE __m256i load(const uint8_t* from) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)); }

HC_INLINE void near_lanes(const uint8_t* sketches, size_t pitch, const uint8_t* sketch, size_t bytes,
                          const uint8_t* limit, uint8_t* near) {
    const __m256i bits_of = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, //
                                             0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
    const __m256i low = _mm256_set1_epi8(15);
    __m256i distance = _mm256_setzero_si256();
    for (size_t b = 0; b < bytes; ++b, sketches += pitch) {
        const __m256i differ = _mm256_xor_si256(load(sketches), _mm256_set1_epi8(static_cast<char>(sketch[b])));
        const __m256i high = _mm256_and_si256(_mm256_srli_epi16(differ, 4), low);
        distance = _mm256_adds_epu8(distance,
                                    _mm256_add_epi8(_mm256_shuffle_epi8(bits_of, _mm256_and_si256(differ, low)),
                                                    _mm256_shuffle_epi8(bits_of, high)));
    }
    const __m256i most = load(limit);
    const __m256i within = _mm256_cmpeq_epi8(_mm256_max_epu8(distance, most), most);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(near), _mm256_and_si256(within, _mm256_set1_epi8(1)));
}

} // namespace

extern const Wide wide_avx2 = {project, near_by<kLanes, near_lanes>, products, coded_products};

} // namespace hc
