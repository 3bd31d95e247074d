// Softmax(Q K') V for one head and a tile of queries.
//
// Queries lie across: what belongs to a tile is stored as rows of kPair values, one a query. So both products take K and
// V as they lie in memory, and softmax goes along whole registers, never across one. A tile that is not full computes
// with zeros.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace hc {

// What is added to the scores of a tile, or with `bools` replaces those where it is zero by -infinity. The value for
// query n and key j lies at data + n * query_step + j * key_step, counted in values.
struct MaskTile {
    const void* data; // null for none
    bool bools;       // bytes, else floats
    int64_t query_step, key_step;
};

struct Attention {
    // to[d][n] = scale * from[n][d] for n < count, 0 for the other n below kPair; from[n][d] at n * pitch + d.
    void (*transpose)(const float* from, size_t pitch, int count, size_t size, float scale, float* to);

    // The inverse: to[n][d] = from[d][n] * scale[n] for n < count.
    void (*transpose_back)(const float* from, const float* scale, int count, size_t size, float* to, size_t pitch);

    // to[r][n] = sum_k x[r * row_step + k * step] * from[k][n], for `rows` rows.
    void (*product)(const float* from, size_t count, const float* x, size_t row_step, size_t step, size_t rows,
                    float* to);

    // scores[j][n] += mask, for n < count.
    void (*add_mask)(const MaskTile& mask, int count, size_t keys, float* scores);

    // scores[j][n] = -infinity where j > first + n: keys behind the query.
    void (*hide_later)(size_t first, size_t keys, float* scores);

    // scores[j][n] = exp(scores[j][n] - max_j scores[j][n]); sum[n] = their sum over j. A column that is -infinity
    // throughout becomes 0, sum and all.
    void (*exponentiate)(float* scores, size_t keys, float* sum);
};

} // namespace hc
