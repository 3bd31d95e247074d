// Sums over the taps of a depthwise convolution in 8 bits.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace hc {

// For 32 channels from `channel`:
//     sum[m][n] = sum_t q[m][tap[t] + channel + n] * taps[t / 4][n][t % 4]
// 32 channels are read even where fewer exist.
struct DepthwiseCall {
    const int8_t* taps;      // (quads, 32, 4), of these channels
    const uint8_t* const* q; // (rows)
    size_t channel;
    const size_t* tap; // (4 * quads)
    size_t quads;
    int32_t* sum; // (rows, 32)
    size_t rows;
};

using Depthwise = void (*)(const DepthwiseCall&);

} // namespace hc
