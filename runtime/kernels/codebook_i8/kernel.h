// Sums of 8-bit centroids times 8-bit activations: the inner loop of HC_INT8.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace hc {

// One tile pair times `rows` rows of activations:
//     sum[m][n] = sum_k q[m][k] * table[index[n][k]]
// The activations are unsigned, with a zero point that the caller takes out (Product::offset). K is `segments` runs of
// `blocks` blocks of codes; run s of row m starts at q[m] + segment[s]. A matrix is one run; a convolution has one for
// each row of its window, read in place.
struct CodebookI8Call {
    const uint8_t* codes;   // of the pair
    const int8_t* table[2]; // of each tile, repeated up to kTableI8 entries
    const uint8_t* const* q; // (rows)
    const size_t* segment;
    size_t segments;
    size_t blocks;
    int32_t* sum; // (rows, 32)
    int rows;     // 1 to kRowBlock
    int tiles;    // 2, or 1 where the second tile is padding (its sums are then left alone)
};

constexpr size_t kTableI8 = 64; // entries of a table, or 2^bits if that is more

using CodebookI8 = void (*)(const CodebookI8Call&);

} // namespace hc
