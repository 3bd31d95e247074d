// Sums over the taps of a depthwise convolution in fp32.
#pragma once

#include <stddef.h>

namespace hc {

// For 32 channels, over windows that are neighbours:
//     sum[m][n] = sum_t x[m * step + tap[t] + n] * taps[t][n]
// 32 channels are read even where fewer exist.
struct DepthwiseF32Call {
    const float* taps; // (count, 32), of these channels
    const float* x;    // of the first window, at these channels
    size_t step;       // to the next window
    const size_t* tap; // (count): where the taps lie
    size_t count;
    float* sum;  // (rows, 32)
    size_t rows; // windows
};

using DepthwiseF32 = void (*)(const DepthwiseF32Call&);

} // namespace hc
