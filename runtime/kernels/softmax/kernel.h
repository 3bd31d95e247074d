// Softmax of rows, and its logarithm.
#pragma once

#include <stddef.h>

namespace hc {

// Of every row, with m its maximum and s the sum of exp(x - m):
//     y = exp(x - m) / s, or, where `log`, y = (x - m) - ln(s)
// A NaN or +infinity makes its row NaN, and so does a row of -infinity alone. The rows lie one behind another.
struct SoftmaxCall {
    const float* x;
    size_t rows, columns;
    bool log;
    float* y;
};

using Softmax = void (*)(const SoftmaxCall&);

} // namespace hc
