// Sums over the taps of a depthwise convolution in 8 bits.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace hc {

// For 32 channels, over windows that are neighbours:
//     sum[m][n] = sum_t q[m * step + tap[t] + n] * taps[t / 4][n][t % 4]
// 32 channels are read even where fewer exist.
struct DepthwiseCall {
    const int8_t* taps;  // (quads, 32, 4), of these channels; zeros beyond the last tap
    const uint8_t* q;    // of the first window, at these channels
    size_t step;         // to the next window
    const size_t* tap;   // (4 * quads): where the taps lie, row by row; beyond the last, any of them again
    size_t quads;        // of taps
    size_t count, width; // taps, and those of a row
    int32_t* sum;        // (rows, 32)
    size_t rows;         // windows
};

using Depthwise = void (*)(const DepthwiseCall&);

} // namespace hc
