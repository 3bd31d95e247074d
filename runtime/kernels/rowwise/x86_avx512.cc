#include <immintrin.h>

#include "rowwise/loops.h"
#include "x86_levels.h"
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

HC_INLINE __mmask16 first_lanes(size_t count) { return static_cast<__mmask16>(count < 16 ? (1u << count) - 1 : 0xFFFF); }

// Squares of 16 x 16; what lies outside is neither read nor written.
void interleave_in_registers(const float* x, size_t plane, size_t channels, size_t n, float* y, size_t pitch) {
    for (size_t i = 0; i < n; i += 16)
        for (size_t c = 0; c < channels; c += 16) {
            const __mmask16 pixels = first_lanes(n - i), kept = first_lanes(channels - c);
            __m512 r[16];
            unroll<16>([&](auto k) HC_LAMBDA {
                r[k.value] = c + k.value < channels ? _mm512_maskz_loadu_ps(pixels, x + (c + k.value) * plane + i)
                                                    : _mm512_setzero_ps();
            });
            transpose(r);
            unroll<16>([&](auto k) HC_LAMBDA {
                if (i + k.value < n) _mm512_mask_storeu_ps(y + (i + k.value) * pitch + c, kept, r[k.value]);
            });
        }
}

HC_INLINE __m512 values(const int32_t* sum, __m512i offset) {
    return _mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_loadu_si512(sum), offset));
}

HC_INLINE __m512 values(const float* sum, __m512i) { return _mm512_loadu_ps(sum); }

template <bool Residual, bool Clamped, class Sum>
void level_rows_in_registers(const Sum* sum, size_t rows, int columns, const Levels& levels, const uint8_t* const* r,
                             uint8_t* const* y, size_t at) {
    const LevelRows<Clamped> level(levels, columns);
    __m512i offset[2];
    unroll<2>([&](auto t) HC_LAMBDA { offset[t.value] = _mm512_loadu_si512(levels.offset + kTile * t.value); });
    const auto words = [&](size_t m) HC_LAMBDA {
        const Sum* from = sum + m * kPair;
        const __m512 v[2] = {values(from, offset[0]), values(from + kTile, offset[1])};
        return level.template words<Residual>(v, Residual ? r[m] + at : nullptr);
    };
    for (size_t m = 0; m < rows; m += 2) {
        const size_t next = m + 1 < rows ? m + 1 : m;
        level.store(words(m), words(next), y[m] + at, y[next] + at);
    }
}

template <class Sum>
void levels_in_registers(const Sum* sum, size_t rows, int columns, const Levels& by, const uint8_t* const* r,
                         uint8_t* const* y, size_t at) {
    const auto rows_of = [&](auto residual) HC_LAMBDA {
        constexpr bool with = residual.value != 0;
        (by.fits ? level_rows_in_registers<with, false, Sum> : level_rows_in_registers<with, true, Sum>)(
            sum, rows, columns, by, r, y, at);
    };
    if (r)
        rows_of(Index<1>{});
    else
        rows_of(Index<0>{});
}

constexpr Rowwise with_registers() {
    Rowwise rowwise = loops();
    rowwise.levels_i32 = levels_in_registers<int32_t>;
    rowwise.levels_f32 = levels_in_registers<float>;
    rowwise.store_columns = store_columns_in_registers;
    rowwise.interleave = interleave_in_registers;
    return rowwise;
}

} // namespace

extern const Rowwise rowwise_avx512 = with_registers();

} // namespace hc
