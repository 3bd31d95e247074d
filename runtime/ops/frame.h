// The shape of a convolution, and the padded NHWC copy of its images.
#pragma once

#include "ops/weight.h"

namespace hc {

struct Geometry {
    // Checks every size; fails where the window does not fit the padded image.
    explicit Geometry(const hc_conv_desc* desc);

    // The same product with fewer, longer rows, where the window is one pixel that visits every pixel.
    Geometry flattened() const;

    size_t batch, channels, height, width;
    size_t taps_y, taps_x, stride_y, stride_x, dilation_y, dilation_x;
    size_t top, left;
    size_t frame_height, frame_width; // with padding
    size_t out_height, out_width;

    // Values of one frame, and the first value of the windows of an output row.
    size_t frame_size() const { return frame_height * frame_width * channels; }
    size_t window(size_t row) const { return row * stride_y * frame_width * channels; }
};

// frames (B, frame_height, frame_width, C) from x (B, C, H, W), zeros around.
void fill_frames(const Geometry& g, const float* x, float* frames, const hc_exec* exec);

// The same in 8 bits, one scale an image (NaN: the image is not finite); sums (B, frame_height, frame_width) over C.
void fill_frames(const Geometry& g, const hc_weight& weight, const float* x, int8_t* frames, int32_t* sums,
                 float* scale, const hc_exec* exec);

// windows[i] = the sum of one image's `pixel_sums` over window i of an output row.
void window_sums(const Geometry& g, const int32_t* pixel_sums, size_t row, int32_t* windows);

}  // namespace hc
