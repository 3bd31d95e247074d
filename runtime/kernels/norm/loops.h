// The loops of the room, which the compiler vectorises, to the same bits on all instruction sets. The row stays in the
// L1 cache from pass to pass.
#pragma once

#include "norm/kernel.h"
#include "sums.h"
#include "vector_math.h"

namespace hc {
namespace {

template <bool Residual, bool Centered>
HC_INLINE void normalize_row(const float* __restrict x, const float* __restrict residual, const NormCall& call,
                             float* __restrict y) {
    const size_t n = call.columns;
    const float* __restrict weight = call.weight;
    const float* __restrict bias = call.bias;
    const float count = static_cast<float>(n);
    const auto value = [&](size_t i) HC_LAMBDA { return Residual ? x[i] + residual[i] : x[i]; };
    const float sum = sum_of(n, [&](size_t i) HC_LAMBDA {
        const float s = value(i);
        y[i] = s;
        return Centered ? s : s * s;
    });
    const float mean = Centered ? sum / count : 0.0f;
    const float squares = Centered ? sum_of(n, [&](size_t i) HC_LAMBDA { return (y[i] - mean) * (y[i] - mean); }) : sum;
    const float inverse = 1.0f / __builtin_sqrtf(squares / count + call.epsilon);
    if (!weight)
        for (size_t i = 0; i < n; ++i) y[i] = (y[i] - mean) * inverse;
    else
        for (size_t i = 0; i < n; ++i) y[i] = fused((y[i] - mean) * inverse, weight[i], bias[i]);
}

template <bool Residual, bool Centered>
void normalize_rows(const NormCall& call) {
    for (size_t row = 0; row < call.rows; ++row) {
        const size_t at = row * call.columns;
        normalize_row<Residual, Centered>(call.x + at, Residual ? call.residual + at : nullptr, call, call.y + at);
    }
}

void normalize(const NormCall& call) {
    if (call.residual)
        (call.centered ? normalize_rows<true, true> : normalize_rows<true, false>)(call);
    else
        (call.centered ? normalize_rows<false, true> : normalize_rows<false, false>)(call);
}

} // namespace
} // namespace hc
