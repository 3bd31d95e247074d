// Activations of outputs, as branch-free loops: the same bits on every instruction set.
#pragma once

#include "hashcompile.h"
#include "inline.h"

namespace hc {
namespace {

template <class F>
HC_INLINE void each(float* x, size_t n, F&& f) {
    for (size_t i = 0; i < n; ++i) x[i] = f(x[i]);
}

void activate(float* x, size_t n, int32_t activation, float low, float high) {
    switch (activation) {
        case HC_RELU: return each(x, n, [](float v) HC_LAMBDA { return v < 0.0f ? 0.0f : v; });
        case HC_CLIP:
            return each(x, n, [=](float v) HC_LAMBDA {
                v = v < low ? low : v; // NaN stays
                return v > high ? high : v;
            });
        default: return;
    }
}

} // namespace
} // namespace hc
