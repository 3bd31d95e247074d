// The loops of the room, which the compiler vectorises, to the same bits on all instruction sets. A row of some
// thousand values stays in the L1 cache from pass to pass.
#pragma once

#include <math.h>

#include "softmax/kernel.h"
#include "sums.h"
#include "vector_math.h"

namespace hc {
namespace {

// Lanes of their own, as in sum_of: a maximum of floats may not be reordered otherwise. What is NaN is passed over.
HC_INLINE float most_of(const float* __restrict x, size_t n) {
    float most[kParts];
    for (size_t j = 0; j < kParts; ++j) most[j] = -__builtin_inff();
    size_t i = 0;
    for (; i + kParts <= n; i += kParts)
        for (size_t j = 0; j < kParts; ++j) most[j] = x[i + j] > most[j] ? x[i + j] : most[j];
    for (size_t j = 0; i + j < n; ++j) most[j] = x[i + j] > most[j] ? x[i + j] : most[j];
    for (size_t j = 1; j < kParts; ++j) most[0] = most[j] > most[0] ? most[j] : most[0];
    return most[0];
}

HC_INLINE void softmax_row(const float* __restrict x, size_t n, float* __restrict y) {
    const float most = most_of(x, n);
    for (size_t i = 0; i < n; ++i) y[i] = exp_f32(x[i] - most);
    const float inverse = 1.0f / sum_of(n, [&](size_t i) HC_LAMBDA { return y[i]; });
    for (size_t i = 0; i < n; ++i) y[i] *= inverse;
}

HC_INLINE void log_softmax_row(const float* __restrict x, size_t n, float* __restrict y) {
    const float most = most_of(x, n);
    const float sum = sum_of(n, [&](size_t i) HC_LAMBDA { return exp_f32(x[i] - most); });
    const float log = logf(sum);
    for (size_t i = 0; i < n; ++i) y[i] = (x[i] - most) - log;
}

void softmax(const SoftmaxCall& call) {
    for (size_t row = 0; row < call.rows; ++row) {
        const size_t at = row * call.columns;
        (call.log ? log_softmax_row : softmax_row)(call.x + at, call.columns, call.y + at);
    }
}

} // namespace
} // namespace hc
