// Products of half a tile, 8 rows x 4 k of signed bytes, with four unsigned activations: 8 sums. How, the compiler's
// flags for the instruction set decide; AVX-VNNI and AVX-512 VNNI are one instruction in two encodings.
#pragma once

#include <immintrin.h>

#include "inline.h"
#include "layout.h"

namespace hc {
namespace {

#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)

struct Dot {
    static constexpr int kOffset = 0;
    __m256i w;

    HC_INLINE explicit Dot(__m256i weights) : w(weights) {}
    HC_INLINE static __m256i activations(const uint8_t* q) { return _mm256_set1_epi32(load_dword(q)); }
    HC_INLINE __m256i add(__m256i sum, __m256i x) const {
#if defined(__AVX512VNNI__)
        return _mm256_dpbusd_epi32(sum, x, w);
#else
        return _mm256_dpbusd_avx_epi32(sum, x, w);
#endif
    }
};

#else

// vpmaddubsw saturates where two large activations meet large weights. So the product is |x| * (w with the sign of x)
// for x = q - 128, at most 2 * 128 * 127; kOffset times the sum of the weights is missing from the sum.
struct Dot {
    static constexpr int kOffset = 128;
    struct Activations {
        __m256i x, size;
    };
    __m256i w;

    HC_INLINE explicit Dot(__m256i weights) : w(weights) {}
    HC_INLINE static Activations activations(const uint8_t* q) {
        const __m256i x = _mm256_set1_epi32(load_dword(q) ^ static_cast<int32_t>(0x80808080));
        return {x, _mm256_abs_epi8(x)};
    }
    HC_INLINE static __m256i widened(__m256i pairs) { return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)); }
    HC_INLINE __m256i add(__m256i sum, const Activations& of) const {
        return _mm256_add_epi32(sum, widened(_mm256_maddubs_epi16(of.size, _mm256_sign_epi8(w, of.x))));
    }
    HC_INLINE __m256i add_weights(__m256i sum) const {
        return _mm256_add_epi32(sum, widened(_mm256_maddubs_epi16(_mm256_set1_epi8(1), w)));
    }
};

#endif

constexpr int kDotRows = 4; // rows of activations at once: with half tiles in pairs, 8 sums in 16 registers

// The sums of one tile.
template <int Rows>
struct HalfTileSums {
    // A multiplication waits four or five cycles for the last one into the same sum: with few rows, each has two.
    static constexpr int chains = Rows <= 2 ? 2 : 1;
    __m256i sum[chains][Rows][2];
    __m256i weights[2]; // summed, for kOffset

    HC_INLINE HalfTileSums() {
        unroll<chains * Rows * 2>([&](auto i) HC_LAMBDA {
            sum[i.value / Rows / 2][i.value / 2 % Rows][i.value % 2] = _mm256_setzero_si256();
        });
        weights[0] = weights[1] = _mm256_setzero_si256();
    }

    // The products of group `Group` with the activations at row[m] + k.
    template <int Group>
    HC_INLINE void add(const __m256i (&w)[2], const uint8_t* const (&row)[Rows], size_t k) {
        const Dot dot[2] = {Dot(w[0]), Dot(w[1])};
        if constexpr (Dot::kOffset != 0)
            unroll<2>([&](auto half)
                          HC_LAMBDA { weights[half.value] = dot[half.value].add_weights(weights[half.value]); });
        unroll<Rows>([&](auto m) HC_LAMBDA {
            const auto x = Dot::activations(row[m.value] + k);
            unroll<2>([&](auto half) HC_LAMBDA {
                __m256i& to = sum[Group % chains][m.value][half.value];
                to = dot[half.value].add(to, x);
            });
        });
    }

    // To `out` (rows, 32), or added to what is there.
    HC_INLINE void store(int32_t* out, bool add) const {
        unroll<2 * Rows>([&](auto i) HC_LAMBDA {
            constexpr int m = i.value / 2, half = i.value % 2;
            auto* to = reinterpret_cast<__m256i*>(out + m * kPair + half * 8);
            __m256i total = sum[0][m][half];
            if constexpr (chains == 2) total = _mm256_add_epi32(total, sum[1][m][half]);
            if constexpr (Dot::kOffset != 0) total = _mm256_add_epi32(total, _mm256_slli_epi32(weights[half], 7));
            if (add) total = _mm256_add_epi32(total, _mm256_loadu_si256(to));
            _mm256_storeu_si256(to, total);
        });
    }
};

} // namespace
} // namespace hc
