// Sums of activations times tiles of a hashed weight, read where they lie in the pool.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace hc {

constexpr int kHashedRows = 8; // of activations, at most

// sum[m][r] += sum_t sum_j x[place[t] & 1][m * pitch + 16 * t + j] * pool[(place[t] >> 1) * 256 + 16 * j + r], for one tile
// of 16 rows r of W: t < tiles, j < 16, m < rows. x[1] is the negative of x[0].
struct HashedCall {
    const float* pool;
    const uint32_t* place;
    size_t tiles;
    const float* x[2];
    size_t pitch;
    int rows;
    float* sum; // (rows, 16)
};

using HashedF32 = void (*)(const HashedCall&);

} // namespace hc
