#include <immintrin.h>

#include "rowwise/loops.h"
#include "x86_transpose.h"

namespace hc {
namespace {

void store_columns_in_registers(const float* block, size_t rows, int columns, float* y, size_t pitch) {
    const __mmask16 kept = static_cast<__mmask16>((1u << rows) - 1);
    for (int first = 0; first < columns; first += kTile) {
        __m512 r[16];
        unroll<16>([&](auto m) HC_LAMBDA { // the first row stands in for rows that are not there
            r[m.value] = _mm512_loadu_ps(block + (m.value < rows ? m.value : 0) * kPair + first);
        });
        transpose(r);
        const int count = columns - first;
        unroll<16>([&](auto n) HC_LAMBDA {
            if (n.value < count) _mm512_mask_storeu_ps(y + (first + n.value) * pitch, kept, r[n.value]);
        });
    }
}

HC_INLINE __m512 values(const int32_t* sum, __m512i offset) {
    return _mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_loadu_si512(sum), offset));
}

HC_INLINE __m512 values(const float* sum, __m512i) { return _mm512_loadu_ps(sum); }

// Some of 32 neighbouring bytes. Masks cost several instructions: they are for the last columns of a row.
struct Columns {
    int count;
    __mmask32 kept;

    HC_INLINE __m256i load(const uint8_t* from) const {
        if (count == kPair) return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
        return _mm256_maskz_loadu_epi8(kept, from);
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

// The operations of level_rows, but the lower limit is that of bytes: what lies below it, and NaN, saturates to the
// least integer on its way through int32 and int16. vcvtps2dq rounds half to even, as `rounded` does.
template <bool Residual, class Sum>
void level_rows_in_registers(const Sum* sum, size_t rows, int columns, const Levels& levels, const uint8_t* const* r,
                             uint8_t* const* y, size_t at) {
    const __m512 high = _mm512_set1_ps(levels.limits.high), r_factor = _mm512_set1_ps(levels.r_factor);
    const __m512i zero = _mm512_set1_epi16(static_cast<int16_t>(levels.zero));
    const __m512i low = _mm512_set1_epi8(static_cast<char>(static_cast<int32_t>(levels.limits.low) + levels.zero));
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15); // undoes the packing
    const Columns bytes = {columns, static_cast<__mmask32>(~0u >> (kPair - columns))};
    __m512i offset[2];
    __m512 factor[2], shift[2];
    unroll<2>([&](auto t) HC_LAMBDA {
        offset[t.value] = _mm512_loadu_si512(levels.offset + kTile * t.value);
        factor[t.value] = _mm512_loadu_ps(levels.factor + kTile * t.value);
        shift[t.value] = _mm512_loadu_ps(levels.shift + kTile * t.value);
    });
    const auto words = [&](size_t m) HC_LAMBDA {
        __m512i rounded[2];
        __m256i other = _mm256_setzero_si256();
        if constexpr (Residual) other = bytes.load(r[m] + at);
        unroll<2>([&](auto t) HC_LAMBDA {
            __m512 v = _mm512_mul_ps(values(sum + m * kPair + kTile * t.value, offset[t.value]), factor[t.value]);
            v = _mm512_add_ps(v, shift[t.value]);
            if constexpr (Residual) {
                const __m512i q = _mm512_cvtepu8_epi32(_mm256_extracti128_si256(other, t.value));
                v = _mm512_add_ps(v, _mm512_mul_ps(_mm512_cvtepi32_ps(q), r_factor));
            }
            rounded[t.value] = _mm512_cvtps_epi32(_mm512_min_ps(high, v)); // NaN stays NaN
        });
        return _mm512_adds_epi16(_mm512_packs_epi32(rounded[0], rounded[1]), zero);
    };
    for (size_t m = 0; m < rows; m += 2) {
        const size_t next = m + 1 < rows ? m + 1 : m;
        __m512i q = _mm512_max_epu8(_mm512_packus_epi16(words(m), words(next)), low);
        q = _mm512_permutexvar_epi32(order, q);
        bytes.store(y[m] + at, _mm512_castsi512_si256(q));
        bytes.store(y[next] + at, _mm512_extracti64x4_epi64(q, 1));
    }
}

template <class Sum>
void levels_in_registers(const Sum* sum, size_t rows, int columns, const Levels& by, const uint8_t* const* r,
                         uint8_t* const* y, size_t at) {
    (r ? level_rows_in_registers<true, Sum> : level_rows_in_registers<false, Sum>)(sum, rows, columns, by, r, y, at);
}

constexpr Rowwise with_registers() {
    Rowwise rowwise = loops();
    rowwise.levels_i32 = levels_in_registers<int32_t>;
    rowwise.levels_f32 = levels_in_registers<float>;
    rowwise.store_columns = store_columns_in_registers;
    return rowwise;
}

} // namespace

extern const Rowwise rowwise_avx512 = with_registers();

} // namespace hc
