// What surrounds the two products of an attention in 8 bits; the products are those of the room int8. Keys lie across
// its columns in the first, features of the values in the second.
//
// The arithmetic is that of hc_attention with HC_INT8, one float operation after the other as written there: all
// instruction sets agree to the bit.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace hc {

// The scores of some queries, and what becomes of them. A pair is 32 keys.
struct ScoresI8 {
    const int32_t* sum;     // (pairs, rows, 32): sum_k (q + 128) * k
    const int32_t* offset;  // (keys): 128 * sum_k k
    const float* key_scale; // (keys)
    const float* row_scale; // (rows)
    const float* mask;      // added; mask[row * mask_step + key]; null for none. Readable to whole pairs, as the two above
    size_t mask_step;
    size_t rows, keys;
    size_t first;    // causal: row m sees the keys up to first + m
    bool causal;
    bool may_be_nan; // some score is: of a mask, or of scales whose product is not finite
    float* score;    // room for the scores of a row, (keys) to whole pairs
    uint8_t* weight; // row m at weight + m * pitch, zeros behind the last key to whole pairs
    size_t pitch;
    float* inverse;  // (rows): 1 / the row's sum of weights; infinite where no key is seen, NaN where a score is
};

struct AttentionI8 {
    // Rows to q + 128, one symmetric scale each, NaN where the row is not finite. `left` rows, as many or more, lie at x.
    void (*quantize_rows)(const float* x, size_t pitch, size_t rows, size_t left, size_t size, uint8_t* q,
                          size_t q_pitch, float* scale);

    // Keys, rounded alike, to weights (pairs of keys, ceil(size / 4), 32, 4) with their scales times `factor`, and
    // offsets. Padding is 0 throughout.
    void (*pack_keys)(const float* k, size_t pitch, size_t keys, size_t size, float factor, int8_t* weights,
                      float* scale, int32_t* offset);

    // Values with one scale a feature to weights (pairs of features, ceil(keys / 4), 32, 4), padded likewise.
    void (*pack_values)(const float* v, size_t pitch, size_t keys, size_t size, int8_t* weights, float* scale);

    void (*softmax)(const ScoresI8& of);

    // y[m * pitch + n] = float(sum[m][n]) * (scale[n] * inverse[m]), sums (rows, 32).
    void (*finish)(const int32_t* sum, size_t rows, size_t columns, const float* scale, const float* inverse, float* y,
                   size_t pitch);
};

} // namespace hc
