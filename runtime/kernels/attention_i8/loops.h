// The loops of the room, for the compiler to vectorise.
#pragma once

#include "attention_i8/kernel.h"
#include "layout.h"
#include "rounding.h"

namespace hc {
namespace {

constexpr float kInfinity = __builtin_inff();
constexpr int32_t kMiddleCode = 128;

constexpr size_t kRowsAhead = 16;

// A head's rows lie a whole token apart, which no hardware prefetcher follows: ask for one early, where `left` rows,
// this one among them, reach as far.
HC_INLINE void prefetch_row(const float* row, size_t pitch, size_t left, size_t size) {
    if (left <= kRowsAhead) return;
    row += kRowsAhead * pitch;
    for (size_t k = 0; k < size; k += kLine / sizeof(float)) __builtin_prefetch(row + k);
}

HC_INLINE uint32_t largest_of(const float* x, size_t n) {
    uint32_t most = 0;
    for (size_t i = 0; i < n; ++i) {
        const uint32_t size = bits_of(x[i]) & 0x7FFFFFFFu;
        most = most > size ? most : size;
    }
    return most;
}

HC_INLINE int32_t code_of(float x, float inverse) { return rounded(bounded(x * inverse, -127.0f, 127.0f)); }

void quantize_rows(const float* __restrict x, size_t pitch, size_t rows, size_t left, size_t size,
                   uint8_t* __restrict q, size_t q_pitch, float* __restrict scale) {
    for (size_t m = 0; m < rows; ++m, x += pitch, q += q_pitch) {
        prefetch_row(x, pitch, left - m, size);
        const Quant quant = symmetric(largest_of(x, size), kMiddleCode);
        for (size_t k = 0; k < size; ++k) q[k] = static_cast<uint8_t>(code_of(x[k], quant.inverse) + kMiddleCode);
        for (size_t k = size; k < q_pitch; ++k) q[k] = 0;
        scale[m] = quant.scale;
    }
}

struct PlainCodes {
    static HC_INLINE Quant quant(const float* x, size_t size) { return symmetric(largest_of(x, size), 0); }

    // Four codes a group, one group after the other, 32 rows apart. Their sum.
    static HC_INLINE int32_t scatter(const float* x, size_t size, float inverse, int8_t* to) {
        constexpr size_t step = 64;
        int32_t sum = 0;
        for (size_t k = 0; k < size; k += step) {
            int8_t codes[step] = {};
            const size_t count = smaller(size - k, step);
            for (size_t i = 0; i < count; ++i) {
                const int32_t code = code_of(x[k + i], inverse);
                codes[i] = static_cast<int8_t>(code);
                sum += code;
            }
            for (size_t i = 0; i < count; i += 4, to += kPairLine) memcpy(to, codes + i, 4);
        }
        return sum;
    }
};

template <class Codes>
void pack_keys(const float* __restrict k, size_t pitch, size_t keys, size_t size, float factor,
               int8_t* __restrict weights, float* __restrict scale, int32_t* __restrict offset) {
    const size_t pair_bytes = (size + 3) / 4 * kPairLine;
    for (; keys; keys -= smaller(keys, kPair), weights += pair_bytes, scale += kPair, offset += kPair)
        for (size_t n = 0; n < kPair; ++n) {
            if (n < keys) {
                prefetch_row(k, pitch, keys - n, size);
                const Quant quant = Codes::quant(k, size);
                offset[n] = kMiddleCode * Codes::scatter(k, size, quant.inverse, weights + 4 * n);
                scale[n] = quant.scale * factor;
                k += pitch;
            } else {
                for (size_t g = 0; g < pair_bytes; g += kPairLine) memset(weights + g + 4 * n, 0, 4);
                offset[n] = 0;
                scale[n] = 0;
            }
        }
}

void pack_values(const float* __restrict v, size_t pitch, size_t keys, size_t size, int8_t* __restrict weights,
                 float* __restrict scale) {
    for (size_t first = 0; first < size; first += kPair, scale += kPair) {
        const size_t count = smaller(size - first, kPair);
        uint32_t largest[kPair] = {};
        for (size_t j = 0; j < keys; ++j) {
            prefetch_row(v + j * pitch + first, pitch, keys - j, count);
            for (size_t n = 0; n < count; ++n) {
                const uint32_t bits = bits_of(v[j * pitch + first + n]) & 0x7FFFFFFFu;
                largest[n] = largest[n] > bits ? largest[n] : bits;
            }
        }
        float inverse[kPair];
        for (int n = 0; n < kPair; ++n) {
            const Quant quant = symmetric(largest[n], 0);
            scale[n] = quant.scale;
            inverse[n] = quant.inverse;
        }
        for (size_t j = 0; j < keys; j += 4) {
            uint32_t codes[kPair] = {};
            for (size_t i = 0; i < smaller(keys - j, 4); ++i)
                for (size_t n = 0; n < count; ++n) {
                    const int32_t code = code_of(v[(j + i) * pitch + first + n], inverse[n]);
                    codes[n] |= static_cast<uint32_t>(code & 255) << (8 * i);
                }
            memcpy(weights, codes, kPairLine);
            weights += kPairLine;
        }
    }
}

// 65280 * 2^f, |f| <= 1/2, to 1.02e-4 of itself, and exactly at 0. 65280 is 255 in steps of 1/256.
constexpr float kPower[] = {65280.0f, 45257.5078f, 15811.5312f, 3590.98291f};
constexpr float kLeast = -20.0f; // 65280 * exp(-20) is 0 in whole numbers
constexpr float kLog2E = 1.44269504f;
constexpr int32_t kHalf = 128; // of 256 steps

// 65280 * exp(x), x <= 0, to a whole number. The products are fused with their sums on every instruction set.
HC_INLINE int32_t weight_of(float x) {
    x = x > kLeast ? x : kLeast;
    const float shifted = __builtin_fmaf(x, kLog2E, kRoundingShift);
    const float f = __builtin_fmaf(x, kLog2E, kRoundingShift - shifted);
    const float power = __builtin_fmaf(f, __builtin_fmaf(f, __builtin_fmaf(f, kPower[3], kPower[2]), kPower[1]), kPower[0]);
    return rounded(float_of(bits_of(power) + (bits_of(shifted) << 23)));
}

// The scores of row m; their maximum.
HC_INLINE float scores_of(const ScoresI8& of, size_t m, size_t seen) {
    float most[kPair];
    for (int n = 0; n < kPair; ++n) most[n] = -kInfinity;
    const float* mask = of.mask ? of.mask + m * of.mask_step : nullptr;
    const float row_scale = of.row_scale[m];
    for (size_t j = 0; j < seen; j += kPair) {
        const int32_t* sum = of.sum + (j * of.rows + m * kPair);
        float score[kPair];
        for (int n = 0; n < kPair; ++n)
            score[n] = static_cast<float>(sum[n] - of.offset[j + n]) * (of.key_scale[j + n] * row_scale);
        if (mask)
            for (int n = 0; n < kPair; ++n) score[n] += mask[j + n];
        for (size_t n = smaller(seen - j, kPair); n < kPair; ++n) score[n] = -kInfinity;
        for (int n = 0; n < kPair; ++n) most[n] = score[n] > most[n] ? score[n] : most[n];
        memcpy(of.score + j, score, sizeof score);
    }
    for (int n = 1; n < kPair; ++n) most[0] = most[n] > most[0] ? most[n] : most[0];
    return most[0];
}

// Rounding errors are carried to the key 32 places on: what many small weights lose together does not grow with them.
HC_INLINE int32_t weights_of(const ScoresI8& of, float most, size_t seen, uint8_t* weight) {
    int32_t carry[kPair], total[kPair] = {};
    for (int n = 0; n < kPair; ++n) carry[n] = kHalf;
    for (size_t j = 0; j < seen; j += kPair)
        for (int n = 0; n < kPair; ++n) {
            const int32_t whole = weight_of(of.score[j + n] - most) + carry[n];
            carry[n] = whole & 255;
            total[n] += whole >> 8;
            weight[j + n] = static_cast<uint8_t>(whole >> 8);
        }
    for (int n = 1; n < kPair; ++n) total[0] += total[n];
    return total[0];
}

template <class Row>
void softmax(const ScoresI8& of) {
    const size_t length = (of.keys + kPair - 1) / kPair * kPair;
    for (size_t m = 0; m < of.rows; ++m) {
        const size_t seen = of.causal ? smaller(of.first + m + 1, of.keys) : of.keys;
        const size_t written = (seen + kPair - 1) / kPair * kPair;
        uint8_t* weight = of.weight + m * of.pitch;
        float most = Row::scores(of, m, seen);
        for (size_t j = 0; of.may_be_nan && j < seen; ++j) most += of.score[j] != of.score[j] ? of.score[j] : 0.0f;
        const bool some = most > -kInfinity && most < kInfinity;
        if (some)
            of.inverse[m] = 1.0f / static_cast<float>(Row::weights(of, most, seen, weight));
        else // nothing is seen, or what is seen is no number
            of.inverse[m] = most == -kInfinity ? kInfinity : __builtin_nanf("");
        const size_t kept = some ? written : 0;
        memset(weight + kept, 0, length - kept);
    }
}

struct PlainRow {
    static HC_INLINE float scores(const ScoresI8& of, size_t m, size_t seen) { return scores_of(of, m, seen); }
    static HC_INLINE int32_t weights(const ScoresI8& of, float most, size_t seen, uint8_t* weight) {
        return weights_of(of, most, seen, weight);
    }
};

void finish(const int32_t* __restrict sum, size_t rows, size_t columns, const float* __restrict scale,
            const float* __restrict inverse, float* __restrict y, size_t pitch) {
    for (size_t m = 0; m < rows; ++m)
        for (size_t n = 0; n < columns; ++n)
            y[m * pitch + n] = static_cast<float>(sum[m * kPair + n]) * (scale[n] * inverse[m]);
}

constexpr AttentionI8 attention_i8_loops = {quantize_rows, pack_keys<PlainCodes>, pack_values, softmax<PlainRow>, finish};

} // namespace
} // namespace hc
