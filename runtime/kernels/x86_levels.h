// Sums in registers to 8 bits: the operations of Rowwise::levels_i32, on two rows of a tile pair at once.
#pragma once

#include <immintrin.h>

#include "inline.h"
#include "layout.h"
#include "rowwise/kernel.h"

namespace hc {
namespace {

// Some of 32 neighbouring bytes. Masks cost several instructions: they are for the last columns of a row.
struct Columns {
    int count;
    __mmask32 kept;

    HC_INLINE explicit Columns(int columns)
        : count(columns), kept(static_cast<__mmask32>(~0u >> (kPair - columns))) {}
    HC_INLINE __m128i load_tile(const uint8_t* from, int tile) const {
        from += tile * kTile;
        if (count == kPair) return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
        return _mm_maskz_loadu_epi8(static_cast<__mmask16>(kept >> tile * kTile), from);
    }
    HC_INLINE void store(uint8_t* to, __m256i bytes) const {
        if (count == kPair)
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), bytes);
        else if (count == kTile)
            _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_castsi256_si128(bytes));
        else
            _mm256_mask_storeu_epi8(to, kept, bytes);
    }
};

// The limits are those of bytes: what lies beyond them saturates on its way through int32 and int16, and NaN becomes the
// least integer, as does what is 2^31 or more unless it is `Clamped` as a float. vcvtps2dq rounds half to even, as
// `rounded` does.
template <bool Clamped>
class LevelRows {
   public:
    HC_INLINE LevelRows(const Levels& levels, int columns)
        : columns_(columns),
          most_(_mm512_set1_ps(levels.limits.high)),
          r_factor_(_mm512_set1_ps(levels.r_factor)),
          zero_(_mm512_set1_epi16(static_cast<int16_t>(levels.zero))),
          low_(_mm512_set1_epi8(static_cast<char>(static_cast<int32_t>(levels.limits.low) + levels.zero))),
          high_(_mm512_set1_epi8(static_cast<char>(static_cast<int32_t>(levels.limits.high) + levels.zero))) {
        unroll<2>([&](auto t) HC_LAMBDA {
            factor_[t.value] = _mm512_loadu_ps(levels.factor + kTile * t.value);
            shift_[t.value] = _mm512_loadu_ps(levels.shift + kTile * t.value);
        });
    }

    // Words of one row, from its sums without offset, and a residual at `r`.
    template <bool Residual>
    HC_INLINE __m512i words(const __m512 (&sum)[2], const uint8_t* r) const {
        __m512i rounded[2];
        unroll<2>([&](auto t) HC_LAMBDA {
            __m512 v = _mm512_add_ps(_mm512_mul_ps(sum[t.value], factor_[t.value]), shift_[t.value]);
            if constexpr (Residual) {
                const __m512i q = _mm512_cvtepu8_epi32(columns_.load_tile(r, t.value));
                v = _mm512_add_ps(v, _mm512_mul_ps(_mm512_cvtepi32_ps(q), r_factor_));
            }
            if constexpr (Clamped) v = _mm512_min_ps(most_, v); // NaN stays NaN
            rounded[t.value] = _mm512_cvtps_epi32(v);
        });
        return _mm512_adds_epi16(_mm512_packs_epi32(rounded[0], rounded[1]), zero_);
    }

    // The words of two rows to bytes.
    HC_INLINE void store(__m512i first, __m512i second, uint8_t* to_first, uint8_t* to_second) const {
        const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15); // undoes packing
        __m512i q = _mm512_max_epu8(_mm512_packus_epi16(first, second), low_);
        if constexpr (!Clamped) q = _mm512_min_epu8(q, high_);
        q = _mm512_permutexvar_epi32(order, q);
        columns_.store(to_first, _mm512_castsi512_si256(q));
        columns_.store(to_second, _mm512_extracti64x4_epi64(q, 1));
    }

   private:
    Columns columns_;
    __m512 most_, r_factor_, factor_[2], shift_[2];
    __m512i zero_, low_, high_;
};

} // namespace
} // namespace hc
