// Activations of outputs, as branch-free loops: the same bits on every instruction set.
#pragma once

#include "hashcompile.h"
#include "vector_math.h"

namespace hc {
namespace {

// x Phi(x), Phi the distribution function of the normal distribution (Hendrycks and Gimpel 2016).
HC_INLINE float gelu(float x) { return 0.5f * x * (1.0f + erf_f32(x * 0.707106781f)); }

// The same paper's approximation.
HC_INLINE float gelu_tanh(float x) {
    return 0.5f * x * (1.0f + tanh_f32(0.797884561f * (x + 0.044715f * x * x * x)));
}

HC_INLINE float silu(float x) { return x * sigmoid_f32(x); }

HC_INLINE float hard_swish(float x) { return x * clamped(x + 3.0f, 0.0f, 6.0f) * (1.0f / 6.0f); }

template <class F>
HC_INLINE void each(float* x, size_t n, F&& f) {
    for (size_t i = 0; i < n; ++i) x[i] = f(x[i]);
}

void activate(float* x, size_t n, int32_t activation, float low, float high) {
    switch (activation) {
        case HC_RELU: return each(x, n, [](float v) HC_LAMBDA { return v < 0.0f ? 0.0f : v; });
        case HC_CLIP: return each(x, n, [=](float v) HC_LAMBDA { return clamped(v, low, high); });
        case HC_GELU: return each(x, n, gelu);
        case HC_GELU_TANH: return each(x, n, gelu_tanh);
        case HC_SILU: return each(x, n, silu);
        case HC_HARD_SWISH: return each(x, n, hard_swish);
        default: return;
    }
}

} // namespace
} // namespace hc
