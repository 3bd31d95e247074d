// The shape of a convolution or a pooling.
#pragma once

#include "ops/sizes.h"

namespace hc {

struct Shape {
    explicit Shape(const hc_shape& shape);
    Shape(size_t batch, size_t channels, size_t height, size_t width);
    Shape() = default;

    size_t batch = 0, channels = 0, height = 0, width = 0;

    size_t plane() const { return height * width; }
    size_t image() const { return plane() * channels; }
    size_t count() const { return image() * batch; }
    bool operator==(const Shape& o) const {
        return batch == o.batch && channels == o.channels && height == o.height && width == o.width;
    }
    hc_shape to_c() const;
};

struct Window {
    // Checks every size.
    explicit Window(const hc_window& window);
    Window() = default;

    size_t taps_y = 1, taps_x = 1, stride_y = 1, stride_x = 1, dilation_y = 1, dilation_x = 1;
    size_t top = 0, left = 0, bottom = 0, right = 0;

    size_t taps() const { return taps_y * taps_x; }
    size_t reach_y() const { return (taps_y - 1) * dilation_y + 1; }
    size_t reach_x() const { return (taps_x - 1) * dilation_x + 1; }

    // The taps [begin, end) of a window that lie in an image of `size`, along one axis: the window starts at `at` of
    // the padded image, which starts `margin` before.
    struct Taps {
        size_t begin, end;
    };
    static Taps inside(size_t at, size_t taps, size_t dilation, size_t margin, size_t size) {
        const size_t begin = at < margin ? ceil_div(margin - at, dilation) : 0;
        const size_t end = at < margin + size ? smaller(taps, ceil_div(margin + size - at, dilation)) : 0;
        return {smaller(begin, end), end};
    }
    Taps rows_inside(size_t row, const Shape& x) const {
        return inside(row * stride_y, taps_y, dilation_y, top, x.height);
    }
    Taps columns_inside(size_t column, const Shape& x) const {
        return inside(column * stride_x, taps_x, dilation_x, left, x.width);
    }

    // How many windows of a row, from its first, end before the image does.
    size_t columns_ending_inside(const Shape& x) const {
        return left + x.width < reach_x() ? 0 : (left + x.width - reach_x()) / stride_x + 1;
    }

    // Has the window a tap in the image wherever it is placed?
    bool every_place_sees(const Shape& x) const;

    // Fails where the window does not fit the padded image.
    Shape output(const Shape& x, size_t channels) const;
};

} // namespace hc
