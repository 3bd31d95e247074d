// The shape of a convolution, and the padded NHWC copy of its images.
#pragma once

#include "ops/scratch.h"
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

    size_t frame_pixels() const { return frame_height * frame_width; }
    size_t frame_size() const { return frame_pixels() * channels; }

    // Where the window of an output pixel begins, in the frames of all images.
    size_t first_pixel(size_t image, size_t row, size_t column) const {
        return image * frame_pixels() + row * stride_y * frame_width + column * stride_x;
    }
    size_t first_value(size_t image, size_t row, size_t column) const {
        return first_pixel(image, row, column) * channels;
    }
};

constexpr size_t kFrameSlack = 64; // values after the last frame that may be read, and mean nothing

// frames (B, frame_height, frame_width, C) from x (B, C, H, W), zeros around.
void fill_frames(const Geometry& g, const float* x, float* frames, const hc_exec* exec);

// The frames in 8 bits, one scale an image.
struct Frames {
    Frames(const Geometry& g, const hc_weight& weight, const float* x, const hc_exec* exec);

    // windows[i] = the sum of `values` over window `column + i` of an output row.
    void window_sums(size_t image, size_t row, size_t column, size_t count, int32_t* windows) const;

    const Geometry& geometry;
    Scratch<int8_t> values;      // (B, frame_height, frame_width, C)
    Scratch<int32_t> pixel_sums; // (B, frame_height, frame_width): over C
    Scratch<float> scale;        // (B); NaN: the image is not finite
};

} // namespace hc
