// Sums of 8-bit weights times 8-bit activations. The weights lie as 8-bit codes do in the T16 layout, but are the
// values themselves: those of a weight that needs no table, or a panel that codebook_i8 decoded.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace hc {

// One tile pair times `rows` rows of activations, over one run of k:
//     sum[m][n] = (add ? sum[m][n] : 0) + sum_k q[m][k] * weights[k / 4][n / 16][n % 16][k % 4]
struct Int8Call {
    const int8_t* weights;   // (groups, 2 tiles, 16 rows, 4)
    const uint8_t* const* q; // (rows), each from q[m] + k
    size_t k;
    size_t groups; // of four k
    int32_t* sum;  // (rows, 32)
    int rows;      // any number
    int tiles;     // 2, or 1 where the second tile is padding (its sums are then left alone)
    bool add;
};

using Int8 = void (*)(const Int8Call&);

} // namespace hc
