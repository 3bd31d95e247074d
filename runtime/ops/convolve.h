// One convolution of images: implicit GEMM, or the depthwise kernel.
#pragma once

#include "ops/finish.h"
#include "ops/images.h"

namespace hc {

// Where outputs go: floats (B, N, OH, OW) with a residual of the same shape, or images in 8 bits.
struct ConvTarget {
    float* y = nullptr;
    const float* residual = nullptr;
    const ByteImages* images = nullptr;
    const ByteImages* residual_images = nullptr;
};

// The output of `weight` on x; fails where they do not fit.
Shape conv_output(const hc_weight& weight, const Window& window, const Shape& x);

void convolve(const hc_weight& weight, const Window& window, const Images<float>& x, const Activation& activation,
              const ConvTarget& to, const hc_exec* exec);
void convolve(const hc_weight& weight, const Window& window, const ByteImages& x, const Activation& activation,
              const ConvTarget& to, const hc_exec* exec);

} // namespace hc
