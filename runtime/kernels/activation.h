// Activations of outputs, branch-free: the same bits on every instruction set.
#pragma once

#include "hashcompile.h"
#include "rowwise/kernel.h"
#include "vector_math.h"

namespace hc {
namespace {

// x Phi(x), Phi the distribution function of the normal distribution (Hendrycks and Gimpel 2016), as
// h + |h| erf(sqrt(2) |h|), h = x / 2: one rounding where 1 + erf(x) would cancel.
HC_INLINE float gelu(float x) {
    const float half = 0.5f * x, size = magnitude(half);
    return fused(size, erf_f32(size * 1.41421356f), half);
}

// The same paper's approximation: h + |h| tanh(sqrt(2 / pi) |x + 0.044715 x^3|).
HC_INLINE float gelu_tanh(float x) {
    const float half = 0.5f * x, size = magnitude(half);
    return fused(size, tanh_f32(size * fused(size * size, 0.285419265f, 1.59576912f)), half);
}

HC_INLINE float silu(float x) { return x * sigmoid_f32(x); }

HC_INLINE float hard_swish(float x) { return x * clamped(x + 3.0f, 0.0f, 6.0f) * (1.0f / 6.0f); }

// body(f), f the function of one float that `function` names.
template <class Body>
HC_INLINE void with_function(const Function& function, Body&& body) {
    const float low = function.low, high = function.high;
    switch (function.kind) {
        case HC_NONE: return body([](float v) HC_LAMBDA { return v; });
        case HC_RELU: return body([](float v) HC_LAMBDA { return v < 0.0f ? 0.0f : v; });
        case HC_CLIP: return body([=](float v) HC_LAMBDA { return clamped(v, low, high); });
        case HC_GELU: return body([](float v) HC_LAMBDA { return gelu(v); });
        case HC_GELU_TANH: return body([](float v) HC_LAMBDA { return gelu_tanh(v); });
        case HC_SILU: return body([](float v) HC_LAMBDA { return silu(v); });
        case HC_HARD_SWISH: return body([](float v) HC_LAMBDA { return hard_swish(v); });
        default: return;
    }
}

} // namespace
} // namespace hc
