// Four taps of 32 channels are interleaved, so that each channel's lie in one dword for vpdpbusd.
#include <immintrin.h>

#include "depthwise/kernel.h"
#include "inline.h"
#include "layout.h"

namespace hc {
namespace {

constexpr int kRows = 4; // pixels that share the loaded weights

// Unpacking works within 128-bit lanes: register j holds channels 4 j to 4 j + 3, and those 16 further.
HC_INLINE __m256i weights(const int8_t* taps, int j) {
    const auto* from = reinterpret_cast<const __m128i*>(taps);
    return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128(from + j)), _mm_loadu_si128(from + j + 4), 1);
}

template <int Rows>
void multiply(const DepthwiseCall& call, size_t row) {
    __m256i sum[Rows][4];
    unroll<4 * Rows>([&](auto i) HC_LAMBDA { sum[i.value / 4][i.value % 4] = _mm256_setzero_si256(); });
    for (size_t quad = 0; quad < call.quads; ++quad) {
        const int8_t* taps = call.taps + quad * kPair * 4;
        const size_t* tap = call.tap + quad * 4;
        __m256i w[4];
        unroll<4>([&](auto j) HC_LAMBDA { w[j.value] = weights(taps, j.value); });
        unroll<Rows>([&](auto m) HC_LAMBDA {
            const uint8_t* q = call.q[row + m.value] + call.channel;
            __m256i x[4];
            unroll<4>([&](auto t) HC_LAMBDA {
                x[t.value] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(q + tap[t.value]));
            });
            const __m256i low[2] = {_mm256_unpacklo_epi8(x[0], x[1]), _mm256_unpacklo_epi8(x[2], x[3])};
            const __m256i high[2] = {_mm256_unpackhi_epi8(x[0], x[1]), _mm256_unpackhi_epi8(x[2], x[3])};
            __m256i(&s)[4] = sum[m.value];
            s[0] = _mm256_dpbusd_epi32(s[0], _mm256_unpacklo_epi16(low[0], low[1]), w[0]);
            s[1] = _mm256_dpbusd_epi32(s[1], _mm256_unpackhi_epi16(low[0], low[1]), w[1]);
            s[2] = _mm256_dpbusd_epi32(s[2], _mm256_unpacklo_epi16(high[0], high[1]), w[2]);
            s[3] = _mm256_dpbusd_epi32(s[3], _mm256_unpackhi_epi16(high[0], high[1]), w[3]);
        });
    }
    unroll<4 * Rows>([&](auto i) HC_LAMBDA {
        constexpr int m = i.value / 4, j = i.value % 4;
        auto* to = reinterpret_cast<__m128i*>(call.sum + (row + m) * kPair + 4 * j);
        _mm_storeu_si128(to, _mm256_castsi256_si128(sum[m][j]));
        _mm_storeu_si128(to + 4, _mm256_extracti128_si256(sum[m][j], 1));
    });
}

void depthwise(const DepthwiseCall& call) {
    size_t row = 0;
    for (; row + kRows <= call.rows; row += kRows) multiply<kRows>(call, row);
    for (; row < call.rows; ++row) multiply<1>(call, row);
}

} // namespace

extern const Depthwise depthwise_avx512vnni = depthwise;

} // namespace hc
