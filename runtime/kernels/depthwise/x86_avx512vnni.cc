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
            const uint8_t* q = call.q + (row + m.value) * call.step;
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

// A column of a window of 3 x 3, or of its weights: a dword of each channel, [above, middle, below, anything or 0]. It
// is put together once for the up to three windows that it belongs to.
struct Column {
    __m512i tile[2];
};

// In every dword bytes a, b and c, of those of `first` (0 to 3) and of `second` (4 to 7), and a zero.
HC_INLINE __m512i pick(__m512i first, __m512i second, int a, int b, int c) {
    const auto index = [](int byte) { return byte < 4 ? byte : 60 + byte; }; // 64 is where `second` begins
    const __m512i dword = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i start = _mm512_mullo_epi32(dword, _mm512_set1_epi32(0x040404)); // of the dword, in each byte
    const __m512i bytes = _mm512_add_epi8(start, _mm512_set1_epi32(index(a) | index(b) << 8 | index(c) << 16));
    return _mm512_maskz_permutex2var_epi8(0x7777777777777777, first, bytes, second);
}

template <int Fresh> // columns that a window does not share with the one before
void multiply_3x3(const DepthwiseCall& call) {
    Column w[3], x[3];
    unroll<2>([&](auto t) HC_LAMBDA {
        __m512i quad[3];
        unroll<3>([&](auto q) HC_LAMBDA {
            quad[q.value] = _mm512_loadu_si512(call.taps + q.value * kPair * 4 + t.value * kLine);
        });
        w[0].tile[t.value] = pick(quad[0], quad[1], 0, 3, 6);
        w[1].tile[t.value] = pick(quad[0], quad[1], 1, 4, 7);
        const __m512i two = pick(quad[0], quad[1], 2, 5, 0);
        w[2].tile[t.value] = pick(two, quad[2], 0, 1, 4);
    });
    const uint8_t* const above = call.q + call.tap[0];
    const uint8_t* const middle = call.q + call.tap[3];
    const uint8_t* const below = call.q + call.tap[6];
    const size_t pitch = call.tap[1] - call.tap[0];
    const __m512i channel = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i first = _mm512_add_epi8(_mm512_mullo_epi32(channel, _mm512_set1_epi32(0x010101)),
                                          _mm512_set1_epi32(0x402000)); // where each row of the window begins
    const __m512i order[2] = {first, _mm512_add_epi8(first, _mm512_set1_epi32(0x101010))};
    const auto load = [&](size_t at) HC_LAMBDA {
        const auto bytes = [&](const uint8_t* row) HC_LAMBDA {
            return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row + at));
        };
        const __m512i two = _mm512_mask_broadcast_i64x4(_mm512_castsi256_si512(bytes(above)), 0xF0, bytes(middle));
        const __m512i one = _mm512_castsi256_si512(bytes(below));
        return Column{{_mm512_permutex2var_epi8(two, order[0], one), _mm512_permutex2var_epi8(two, order[1], one)}};
    };
    size_t at = 0;
    unroll<3 - Fresh>([&](auto j) HC_LAMBDA {
        x[Fresh + j.value] = load(at);
        at += pitch;
    });
    for (size_t m = 0; m < call.rows; ++m) {
        unroll<3 - Fresh>([&](auto j) HC_LAMBDA { x[j.value] = x[Fresh + j.value]; });
        unroll<Fresh>([&](auto j) HC_LAMBDA {
            x[3 - Fresh + j.value] = load(at);
            at += pitch;
        });
        unroll<2>([&](auto t) HC_LAMBDA {
            __m512i sum = _mm512_setzero_si512();
            unroll<3>([&](auto j) HC_LAMBDA {
                sum = _mm512_dpbusd_epi32(sum, x[j.value].tile[t.value], w[j.value].tile[t.value]);
            });
            _mm512_storeu_si512(call.sum + m * kPair + t.value * kTile, sum);
        });
    }
}

// Windows of 3 x 3, `stride` columns apart.
bool is_3x3(const DepthwiseCall& call, size_t stride) {
    const size_t* tap = call.tap;
    if (call.count != 9 || call.width != 3) return false;
    const size_t pitch = tap[1] - tap[0];
    return tap[2] - tap[1] == pitch && call.step == stride * pitch;
}

void depthwise(const DepthwiseCall& call) {
    if (is_3x3(call, 1)) return multiply_3x3<1>(call);
    if (is_3x3(call, 2)) return multiply_3x3<2>(call);
    size_t row = 0;
    for (; row + kRows <= call.rows; row += kRows) multiply<kRows>(call, row);
    for (; row < call.rows; ++row) multiply<1>(call, row);
}

} // namespace

extern const Depthwise depthwise_avx512vnni = depthwise;

} // namespace hc
