// Sums of 8-bit centroids times 8-bit activations: the inner loops of HC_INT8.
//
// As in codebook_f32: with few rows decoding and multiplying are one loop; with many a run of codes is decoded once to
// a panel in the L1 cache, if that pays.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "rowwise/kernel.h"

namespace hc {

// One tile pair times `rows` rows of activations:
//     sum[m][n] = sum_k q[m][k] * table[index[n][k]]
// The activations are unsigned, with a zero point that the caller takes out (Product::offset). K is `segments` runs of
// `blocks` blocks of codes; run s of row m starts at q[m] + segment[s]. A matrix is one run; a convolution has one for
// each row of its window, read in place.
struct CodebookI8Call {
    const uint8_t* codes;    // of the pair
    const int8_t* table[2];  // of each tile, repeated up to kTableI8 entries
    const uint8_t* const* q; // (rows)
    const size_t* segment;
    size_t segments;
    size_t blocks;
    int32_t* sum; // (rows, 32)
    int rows;     // 1 to kRowBlock
    int tiles;    // 2, or 1 where the second tile is padding (its sums are then left alone)
};

// Where the sums of a whole pair go as bytes, with the arguments of Rowwise::levels_i32. What is rounded is less than
// 2^31 (Levels::fits).
struct LevelsCall {
    const Levels* levels;
    const uint8_t* const* r; // (rows); null for no residual
    uint8_t* const* y;       // (rows)
    size_t at;
};

constexpr int kLeastRowsToLevels = 4;

constexpr size_t kTableI8 = 64; // entries of a table, or 2^bits if that is more

struct CodebookI8 {
    void (*multiply)(const CodebookI8Call&);

    // weights[k / 4][n / 16][n % 16][k % 4] = table[n / 16][index[n][k]] for `blocks` blocks of codes: what the int8
    // room multiplies.
    void (*decode)(const uint8_t* codes, size_t blocks, const int8_t* const table[2], int8_t* weights);

    int most_rows; // with more, decoding once for all is faster than `multiply` for each kRowBlock

    // `multiply` and Rowwise::levels_i32 in one, for two tiles and kLeastRowsToLevels rows or more; call.sum is unused.
    // The sums never leave their registers, and those of the next rows begin while they become bytes. Null where that
    // is not faster.
    void (*multiply_to_levels)(const CodebookI8Call& call, const LevelsCall& to) = nullptr;
};

} // namespace hc
