// Images with channels innermost: what windows are read from. In 8 bits each has a margin of zeros around it, so that every
// window can be read in place.
#pragma once

#include "ops/parallel.h"
#include "ops/quantize.h"
#include "ops/window.h"

namespace hc {

constexpr size_t kImageSlack = 64; // values after the last that may be read, and mean nothing

struct Margin {
    size_t top = 0, left = 0, bottom = 0, right = 0;

    static Margin of(const Window& w) { return {w.top, w.left, w.bottom, w.right}; }
    void widen(const Margin& o); // to hold both
};

// Images in 8 bits, each with its own scale and zero point. A scale of NaN: the image is not finite. Memory is elsewhere:
// (batch, top + height + bottom, left + width + right, channels), `slack` after it.
struct ByteImages {
    Shape shape;
    Margin margin;
    uint8_t* values = nullptr;
    Quant* quant = nullptr; // (batch)

    size_t row_pitch() const { return (margin.left + shape.width + margin.right) * shape.channels; }
    size_t image_pitch() const { return (margin.top + shape.height + margin.bottom) * row_pitch(); }
    size_t size() const; // of `values`, with the slack; fails where it overflows

    // The value of channel 0 at (y, x) of the image without margin; y and x may reach into the margin.
    uint8_t* pixel(size_t image, ptrdiff_t y, ptrdiff_t x) const {
        return values + image * image_pitch() +
               static_cast<size_t>(static_cast<ptrdiff_t>(margin.top) + y) * row_pitch() +
               static_cast<size_t>(static_cast<ptrdiff_t>(margin.left) + x) * shape.channels;
    }

    void fill_margins(size_t image) const;
};

// Images of floats, dense and without margin: nothing is read that is not there.
struct FloatImages {
    Shape shape;
    const float* values;

    const float* end() const { return values + shape.count(); }
    const float* pixel(size_t image, size_t y, size_t x) const {
        return values + ((image * shape.height + y) * shape.width + x) * shape.channels;
    }
};

// Where the values of one window lie, from the first: whole window rows, or single taps where a dilation or a group of
// channels parts them.
class Runs {
   public:
    Runs(const Window& window, const ByteImages& images, size_t channels);

    size_t length; // of a run
    std::vector<size_t> offset;
};

// x (B, C, H, W) to y (B, H, W, C).
void interleave(const Shape& shape, const float* x, const Rowwise& rowwise, float* y, const hc_exec* exec);

// x (B, C, H, W) to images, margins filled.
void fill(const ByteImages& images, const float* x, const Rowwise& rowwise, const hc_exec* exec);

// The symmetric scale of every image of x (B, C, H, W).
void find_symmetric(const Shape& shape, const float* x, const Rowwise& rowwise, Quant* quant, const hc_exec* exec);

} // namespace hc
