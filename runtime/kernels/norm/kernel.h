// Layer norm and RMS norm of rows, with a residual that is added first.
#pragma once

#include <stddef.h>

namespace hc {

// Of every row s = x + residual, in place of mean and mean square over the columns their sums divided by `columns`:
//     centered:  y = (s - mean) / sqrt(mean square of s - mean + epsilon) * weight + bias
//     otherwise: y = s / sqrt(mean square of s + epsilon) * weight + bias
// The rows lie one behind another.
struct NormCall {
    const float* x;
    const float* residual; // null for none
    size_t rows, columns;
    bool centered;
    float epsilon;
    const float* weight; // (columns); null, and bias too, for ones and zeros
    const float* bias;   // (columns)
    float* y;
};

using Norm = void (*)(const NormCall&);

} // namespace hc
