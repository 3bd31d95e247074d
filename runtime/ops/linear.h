// A linear layer on rows of floats.
#pragma once

#include "ops/finish.h"

namespace hc {

// Fails where `weight` is none, or that of a convolution.
void check_layer(const hc_weight* weight);

// m rows of x to rows of `to`.
void linear(const hc_weight& weight, const float* x, size_t m, const Activation& activation, const FloatTarget& to,
            const hc_exec* exec);

} // namespace hc
