// Sums of fp32 centroids times fp32 activations: the inner loops of HC_FLOAT.
//
// With many rows a run of codes is decoded once to a panel in the L1 cache, (k, 32) fp32, and the panel is multiplied;
// with few rows decoding and multiplying are one loop, where an ISA has one.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace hc {

struct CodebookF32 {
    // panel[k][n] = table[n / 16][index[n][k]] for `blocks` blocks of codes.
    void (*decode)(const uint8_t* codes, size_t blocks, const float* const table[2], float* panel);

    // sum[m][n] += sum_k x[m][k] * table[n / 16][index[n][k]], k over `blocks` whole blocks. May be null.
    void (*multiply)(const uint8_t* codes, size_t blocks, const float* const table[2], const float* x, size_t ldx,
                     int rows, float* sum);
};

// sum[m][n] += sum_k x[m][k] * panel[k][n], for 1 to kRowBlock rows.
using PanelF32 = void (*)(const float* panel, size_t k, const float* x, size_t ldx, int rows, float* sum);

constexpr size_t kTableF32 = 16; // entries of a table, or 2^bits if that is more; shorter tables repeat

} // namespace hc
