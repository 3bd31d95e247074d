// One convolution of images: implicit GEMM, or the depthwise kernel.
#pragma once

#include "ops/finish.h"
#include "ops/images.h"

namespace hc {

// Where outputs go: floats (B, N, OH, OW) or (B, OH, OW, N), or images in 8 bits. A residual of floats lies as y does.
struct ConvTarget {
    float* y = nullptr;
    bool channels_last = false;
    const float* residual = nullptr;
    const ByteImages* images = nullptr;
    const ByteImages* byte_residual = nullptr;
};

// The output of `weight` on x; fails where they do not fit.
Shape conv_output(const hc_weight& weight, const Window& window, const Shape& x);

// Targets are floats.
void convolve(const hc_weight& weight, const Window& window, const FloatImages& x, const Activation& activation,
              const ConvTarget& to, const hc_exec* exec);
void convolve(const hc_weight& weight, const Window& window, const ByteImages& x, const Activation& activation,
              const ConvTarget& to, const hc_exec* exec);

} // namespace hc
