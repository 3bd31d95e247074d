// Sums of bf16 centroids times bf16 activations in fp32: the inner loop of HC_BF16.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace hc {

// sum[m][n] += sum_k bf16(x[m][k]) * table[n / 16][index[n][k]], k over `blocks` whole blocks, 1 to kRowBlock rows.
// bf16() rounds to nearest, halves to even; tables hold the upper halves of floats that were so rounded.
using CodebookBf16 = void (*)(const uint8_t* codes, size_t blocks, const uint16_t* const table[2], const float* x,
                              size_t ldx, int rows, float* sum);

constexpr size_t kTableBf16 = 32; // entries of a table, or 2^bits if that is more; shorter tables repeat

} // namespace hc
