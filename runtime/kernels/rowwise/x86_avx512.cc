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

// The operations of finish_bytes, one for one: vcvtps2dq rounds half to even, as `rounded` does.
template <bool Residual>
void finish_bytes_in_registers(const int32_t* sum, size_t rows, int columns, const Scaling& scaling,
                              const uint8_t* const* r, const Quant& r_quant, const Quant& quant, const Limits& limits,
                              uint8_t* const* y, size_t at) {
    const __m512 inverse = _mm512_set1_ps(quant.inverse), r_scale = _mm512_set1_ps(r_quant.scale);
    const __m512 low = _mm512_set1_ps(limits.low), high = _mm512_set1_ps(limits.high);
    const __m512i zero = _mm512_set1_epi32(quant.zero), r_zero = _mm512_set1_epi32(r_quant.zero);
    for (int first = 0; first < columns; first += kTile) {
        const bool whole = columns - first >= kTile;
        const __mmask16 kept = whole ? 0xFFFF : static_cast<__mmask16>((1u << (columns - first)) - 1);
        const __m512i offset = _mm512_loadu_si512(scaling.offset + first);
        const __m512 scale = _mm512_loadu_ps(scaling.scale + first), bias = _mm512_loadu_ps(scaling.bias + first);
        for (size_t m = 0; m < rows; ++m) {
            const __m512 both = _mm512_set1_ps(row_scale(scaling, m) * scaling.table_scale[first / kTile]);
            const __m512i centred = _mm512_sub_epi32(_mm512_loadu_si512(sum + m * kPair + first), offset);
            __m512 v = _mm512_mul_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(centred), both), scale);
            v = _mm512_add_ps(v, bias);
            if constexpr (Residual) {
                const uint8_t* from = r[m] + at + first;
                const __m128i bytes = whole ? _mm_loadu_si128(reinterpret_cast<const __m128i*>(from))
                                            : _mm_maskz_loadu_epi8(kept, from);
                const __m512i other = _mm512_sub_epi32(_mm512_cvtepu8_epi32(bytes), r_zero);
                v = _mm512_add_ps(v, _mm512_mul_ps(_mm512_cvtepi32_ps(other), r_scale));
            }
            v = _mm512_min_ps(_mm512_max_ps(_mm512_mul_ps(v, inverse), low), high); // NaN becomes low
            const __m128i q = _mm512_cvtepi32_epi8(_mm512_add_epi32(_mm512_cvtps_epi32(v), zero));
            uint8_t* to = y[m] + at + first;
            if (whole)
                _mm_storeu_si128(reinterpret_cast<__m128i*>(to), q);
            else
                _mm_mask_storeu_epi8(to, kept, q);
        }
    }
}

void finish_u8_in_registers(const int32_t* sum, size_t rows, int columns, const Scaling& scaling,
                            const uint8_t* const* r, const Quant& r_quant, const Quant& quant, const Limits& limits,
                            uint8_t* const* y, size_t at) {
    (r ? finish_bytes_in_registers<true> : finish_bytes_in_registers<false>)(sum, rows, columns, scaling, r, r_quant,
                                                                           quant, limits, y, at);
}

constexpr Rowwise with_registers() {
    Rowwise rowwise = loops();
    rowwise.finish_u8 = finish_u8_in_registers;
    rowwise.store_columns = store_columns_in_registers;
    return rowwise;
}

} // namespace

extern const Rowwise rowwise_avx512 = with_registers();

} // namespace hc
