#include <immintrin.h>

#include "attention_i8/loops.h"

namespace hc {
namespace {

HC_INLINE __mmask16 first_lanes(size_t count) { return static_cast<__mmask16>(count < 16 ? (1u << count) - 1 : 0xFFFF); }

// The operations of loops.h, one for one: vcvtps2dq rounds half to even, as `rounded` does.
struct RegisterRow {
    template <bool Masked>
    static HC_INLINE __m512 scores(const ScoresI8& of, const float* mask, float row_scale, const int32_t* sum,
                                   size_t j) {
        const __m512i centred = _mm512_sub_epi32(_mm512_loadu_si512(sum), _mm512_loadu_si512(of.offset + j));
        const __m512 scale = _mm512_mul_ps(_mm512_loadu_ps(of.key_scale + j), _mm512_set1_ps(row_scale));
        const __m512 score = _mm512_mul_ps(_mm512_cvtepi32_ps(centred), scale);
        return Masked ? _mm512_add_ps(score, _mm512_loadu_ps(mask + j)) : score;
    }

    template <bool Masked>
    static HC_INLINE float scores(const ScoresI8& of, size_t m, size_t seen) {
        const float* mask = Masked ? of.mask + m * of.mask_step : nullptr;
        const __m512 hidden = _mm512_set1_ps(-kInfinity);
        __m512 most = hidden;
        for (size_t j = 0; j < seen; j += kPair)
            unroll<2>([&](auto half) HC_LAMBDA {
                const size_t first = j + half.value * kTile;
                const __mmask16 kept = first < seen ? first_lanes(seen - first) : 0;
                const int32_t* sum = of.sum + (j * of.rows + m * kPair) + half.value * kTile;
                const __m512 score =
                    _mm512_mask_mov_ps(hidden, kept, scores<Masked>(of, mask, of.row_scale[m], sum, first));
                most = _mm512_max_ps(score, most); // the second one where the first is NaN
                _mm512_storeu_ps(of.score + first, score);
            });
        return _mm512_reduce_max_ps(most);
    }

    static HC_INLINE float scores(const ScoresI8& of, size_t m, size_t seen) {
        return of.mask ? scores<true>(of, m, seen) : scores<false>(of, m, seen);
    }

    static HC_INLINE __m512i weight(__m512 x) {
        const __m512 shift = _mm512_set1_ps(kRoundingShift), log2e = _mm512_set1_ps(kLog2E);
        x = _mm512_max_ps(x, _mm512_set1_ps(kLeast));
        const __m512 shifted = _mm512_fmadd_ps(x, log2e, shift);
        const __m512 f = _mm512_fmadd_ps(x, log2e, _mm512_sub_ps(shift, shifted));
        __m512 power = _mm512_set1_ps(kPower[3]);
        unroll<3>([&](auto i) HC_LAMBDA { power = _mm512_fmadd_ps(f, power, _mm512_set1_ps(kPower[2 - i.value])); });
        const __m512i exponent = _mm512_slli_epi32(_mm512_castps_si512(shifted), 23);
        return _mm512_cvtps_epi32(_mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(power), exponent)));
    }

    static HC_INLINE int32_t weights(const ScoresI8& of, float most, size_t seen, uint8_t* to) {
        const __m512 largest = _mm512_set1_ps(most);
        const __m512i low = _mm512_set1_epi32(255);
        __m512i carry[2], total[2];
        unroll<2>([&](auto half) HC_LAMBDA {
            carry[half.value] = _mm512_set1_epi32(kHalf);
            total[half.value] = _mm512_setzero_si512();
        });
        for (size_t j = 0; j < seen; j += kPair)
            unroll<2>([&](auto half) HC_LAMBDA {
                constexpr int h = half.value;
                const __m512 score = _mm512_loadu_ps(of.score + j + h * kTile);
                const __m512i whole = _mm512_add_epi32(weight(_mm512_sub_ps(score, largest)), carry[h]);
                const __m512i kept = _mm512_srli_epi32(whole, 8);
                carry[h] = _mm512_and_si512(whole, low);
                total[h] = _mm512_add_epi32(total[h], kept);
                _mm_storeu_si128(reinterpret_cast<__m128i*>(to + j + h * kTile), _mm512_cvtepi32_epi8(kept));
            });
        return _mm512_reduce_add_epi32(_mm512_add_epi32(total[0], total[1]));
    }
};

HC_INLINE Quant symmetric_row(const float* x, size_t size, int32_t zero) {
    const __m512i sign = _mm512_set1_epi32(0x7FFFFFFF);
    __m512i most = _mm512_setzero_si512();
    for (size_t k = 0; k < size; k += 16) {
        const __m512 values = _mm512_maskz_loadu_ps(first_lanes(size - k), x + k);
        most = _mm512_max_epu32(most, _mm512_and_si512(_mm512_castps_si512(values), sign));
    }
    return symmetric(_mm512_reduce_max_epu32(most), zero);
}

HC_INLINE __m512i codes_of(__mmask16 kept, const float* x, __m512 inverse) {
    const __m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(kept, x), inverse);
    const __m512 bounded = _mm512_min_ps(_mm512_max_ps(v, _mm512_set1_ps(-127.0f)), _mm512_set1_ps(127.0f));
    return _mm512_maskz_cvtps_epi32(kept, bounded);
}

void quantize_rows_in_registers(const float* x, size_t pitch, size_t rows, size_t left, size_t size, uint8_t* q,
                                size_t q_pitch, float* scale) {
    const __m512i zero = _mm512_set1_epi32(kMiddleCode);
    for (size_t m = 0; m < rows; ++m, x += pitch, q += q_pitch) {
        prefetch_row(x, pitch, left - m, size);
        const Quant quant = symmetric_row(x, size, kMiddleCode);
        const __m512 inverse = _mm512_set1_ps(quant.inverse);
        for (size_t k = 0; k < size; k += 16) {
            const __m512i codes = codes_of(first_lanes(size - k), x + k, inverse);
            _mm_mask_storeu_epi8(q + k, first_lanes(q_pitch - k), _mm512_cvtepi32_epi8(_mm512_add_epi32(codes, zero)));
        }
        scale[m] = quant.scale;
    }
}

struct RegisterCodes {
    static HC_INLINE Quant quant(const float* x, size_t size) { return symmetric_row(x, size, 0); }

    static HC_INLINE int32_t scatter(const float* x, size_t size, float inverse, int8_t* to) {
        __m512i sum = _mm512_setzero_si512();
        for (size_t k = 0; k < size; k += 16) {
            const __m512i codes = codes_of(first_lanes(size - k), x + k, _mm512_set1_ps(inverse));
            const __m128i bytes = _mm512_cvtepi32_epi8(codes);
            sum = _mm512_add_epi32(sum, codes);
            unroll<4>([&](auto i) HC_LAMBDA {
                const int32_t four = _mm_extract_epi32(bytes, i.value);
                if (k + 4 * i.value < size) memcpy(to + (k / 4 + i.value) * kPairLine, &four, sizeof four);
            });
        }
        return _mm512_reduce_add_epi32(sum);
    }
};

} // namespace

extern const AttentionI8 attention_i8_avx512 = {quantize_rows_in_registers, pack_keys<RegisterCodes>, pack_values,
                                                softmax<RegisterRow>, finish};

} // namespace hc
