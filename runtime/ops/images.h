// Images with channels innermost and a margin of zeros around each: what windows are read from in place.
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

// Memory elsewhere: (batch, top + height + bottom, left + width + right, channels), `slack` after it.
template <class T>
struct Images {
    Shape shape;
    Margin margin;
    T* values = nullptr;

    size_t row_pitch() const { return (margin.left + shape.width + margin.right) * shape.channels; }
    size_t image_pitch() const { return (margin.top + shape.height + margin.bottom) * row_pitch(); }
    size_t size() const; // of `values`, with the slack; fails where it overflows

    // The value of channel 0 at (y, x) of the image without margin; y and x may reach into the margin.
    T* pixel(size_t image, ptrdiff_t y, ptrdiff_t x) const {
        return values + image * image_pitch() +
               static_cast<size_t>(static_cast<ptrdiff_t>(margin.top) + y) * row_pitch() +
               static_cast<size_t>(static_cast<ptrdiff_t>(margin.left) + x) * shape.channels;
    }
};

// In 8 bits, each image with its own scale and zero point. A scale of NaN: the image is not finite.
struct ByteImages : Images<uint8_t> {
    Quant* quant = nullptr; // (batch)

    void fill_margins(size_t image) const;
};

// Where the values of one window lie, from the first: whole window rows, or single taps where a dilation or a group of
// channels parts them.
class Runs {
   public:
    template <class T>
    Runs(const Window& window, const Images<T>& images, size_t channels)
        : Runs(window, images.row_pitch(), images.shape.channels, channels) {}

    size_t length; // of a run
    std::vector<size_t> offset;

   private:
    Runs(const Window& window, size_t row_pitch, size_t pixel_pitch, size_t channels);
};

// x (B, C, H, W) to images, margins filled.
void fill(const Images<float>& images, const float* x, const Rowwise& rowwise, const hc_exec* exec);
void fill(const ByteImages& images, const float* x, const Rowwise& rowwise, const hc_exec* exec);

// The symmetric scale of every image of x (B, C, H, W).
void find_symmetric(const Shape& shape, const float* x, const Rowwise& rowwise, Quant* quant, const hc_exec* exec);

} // namespace hc
