#include "ops/images.h"

#include <math.h>
#include <string.h>

#include "ops/scratch.h"

namespace hc {
namespace {

constexpr double kMaximumNs = 0.05; // for one value
constexpr double kCopyNs = 0.5;     // for one value, transposed
constexpr size_t kRun = 256;        // pixels

size_t greater(size_t a, size_t b) { return a > b ? a : b; }

// body(image, y, x, count): runs of pixels of one row, all of every image.
template <class Body>
void each_run(const Shape& s, const hc_exec* exec, const Body& body) {
    const size_t runs = ceil_div(s.width, kRun);
    parallel(exec, product(s.batch, s.height, runs), static_cast<double>(smaller(s.width, kRun) * s.channels) * kCopyNs,
             [&](size_t begin, size_t end) {
                 for (size_t i = begin; i < end; ++i) {
                     const size_t first = i % runs * kRun;
                     body(i / runs / s.height, i / runs % s.height, first, smaller(s.width - first, kRun));
                 }
             });
}

} // namespace

void Margin::widen(const Margin& o) {
    top = greater(top, o.top);
    left = greater(left, o.left);
    bottom = greater(bottom, o.bottom);
    right = greater(right, o.right);
}

size_t ByteImages::size() const {
    const size_t rows = product(shape.batch, margin.top + shape.height + margin.bottom);
    return product(rows, margin.left + shape.width + margin.right, shape.channels) + kImageSlack;
}

// What surrounds the rows [0, height) of an image.
void ByteImages::fill_margins(size_t image) const {
    const size_t pitch = row_pitch();
    uint8_t* const first = values + image * image_pitch();
    const auto set = [value = static_cast<uint8_t>(quant[image].zero)](uint8_t* from, size_t count) {
        memset(from, value, count);
    };
    set(first, margin.top * pitch);
    set(first + (margin.top + shape.height) * pitch, margin.bottom * pitch);
    if (margin.left || margin.right)
        for (size_t y = margin.top; y < margin.top + shape.height; ++y) {
            set(first + y * pitch, margin.left * shape.channels);
            set(first + y * pitch + (margin.left + shape.width) * shape.channels, margin.right * shape.channels);
        }
}

Runs::Runs(const Window& w, const ByteImages& images, size_t channels) {
    const size_t pixel_pitch = images.shape.channels;
    const bool whole_rows = w.dilation_x == 1 && channels == pixel_pitch;
    const size_t per_row = whole_rows ? 1 : w.taps_x;
    length = whole_rows ? w.taps_x * channels : channels;
    for (size_t i = 0; i < w.taps_y; ++i)
        for (size_t j = 0; j < per_row; ++j)
            offset.push_back(i * w.dilation_y * images.row_pitch() + j * w.dilation_x * pixel_pitch);
}

void interleave(const Shape& s, const float* x, const Rowwise& rowwise, float* y, const hc_exec* exec) {
    each_run(s, exec, [&](size_t image, size_t row, size_t first, size_t count) {
        const size_t pixel = row * s.width + first;
        rowwise.interleave(x + image * s.image() + pixel, s.plane(), s.channels, count,
                           y + image * s.image() + pixel * s.channels, s.channels);
    });
}

void fill(const ByteImages& images, const float* x, const Rowwise& rowwise, const hc_exec* exec) {
    const Shape& s = images.shape;
    for (size_t image = 0; image < s.batch; ++image) images.fill_margins(image);
    each_run(s, exec, [&](size_t image, size_t row, size_t first, size_t count) {
        rowwise.quantize_channels(x + image * s.image() + row * s.width + first, s.plane(), s.channels, count,
                                  images.quant[image],
                                  images.pixel(image, static_cast<ptrdiff_t>(row), static_cast<ptrdiff_t>(first)),
                                  s.channels);
    });
}

void find_symmetric(const Shape& s, const float* x, const Rowwise& rowwise, Quant* quant, const hc_exec* exec) {
    Scratch<uint32_t> largest(product(s.batch, s.channels));
    parallel(exec, s.batch * s.channels, static_cast<double>(s.plane()) * kMaximumNs, [&](size_t begin, size_t end) {
        for (size_t i = begin; i < end; ++i) largest[i] = rowwise.largest(x + i * s.plane(), s.plane());
    });
    for (size_t image = 0; image < s.batch; ++image) {
        uint32_t most = 0;
        for (size_t c = 0; c < s.channels; ++c)
            if (largest[image * s.channels + c] > most) most = largest[image * s.channels + c];
        quant[image] = symmetric_quant(most);
    }
}

} // namespace hc
