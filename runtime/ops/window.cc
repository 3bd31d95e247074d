#include "ops/window.h"

namespace hc {
namespace {

size_t size_in(const char* what, int64_t value, int64_t least) {
    if (value < least || value > INT32_MAX)
        fail(HC_INVALID_ARGUMENT, "%s is %lld; wanted %lld or more", what, static_cast<long long>(value),
             static_cast<long long>(least));
    return static_cast<size_t>(value);
}

size_t out_size(const char* what, size_t padded, size_t reach, size_t stride) {
    if (reach > padded)
        fail(HC_INVALID_ARGUMENT, "a window that spans %zu does not fit the padded %s of %zu", reach, what, padded);
    return (padded - reach) / stride + 1;
}

} // namespace

Shape::Shape(size_t batch_, size_t channels_, size_t height_, size_t width_)
    : batch(batch_), channels(channels_), height(height_), width(width_) {
    product(product(batch, channels, sizeof(float)), height, width);
}

Shape::Shape(const hc_shape& s)
    : Shape(size_in("batch", s.batch, 0), size_in("channels", s.channels, 1), size_in("height", s.height, 0),
            size_in("width", s.width, 0)) {}

hc_shape Shape::to_c() const {
    return {static_cast<int64_t>(batch), static_cast<int64_t>(channels), static_cast<int64_t>(height),
            static_cast<int64_t>(width)};
}

Window::Window(const hc_window& w)
    : taps_y(size_in("kernel height", w.kernel[0], 1)),
      taps_x(size_in("kernel width", w.kernel[1], 1)),
      stride_y(size_in("vertical stride", w.strides[0], 1)),
      stride_x(size_in("horizontal stride", w.strides[1], 1)),
      dilation_y(size_in("vertical dilation", w.dilations[0], 1)),
      dilation_x(size_in("horizontal dilation", w.dilations[1], 1)),
      top(size_in("top padding", w.pads[0], 0)),
      left(size_in("left padding", w.pads[1], 0)),
      bottom(size_in("bottom padding", w.pads[2], 0)),
      right(size_in("right padding", w.pads[3], 0)) {
    product(taps_y, taps_x, sizeof(size_t));
    product(taps_y, dilation_y);
    product(taps_x, dilation_x);
}

bool Window::every_place_sees(const Shape& x) const {
    const Shape out = output(x, x.channels);
    if (!out.count()) return true;
    // No window lies beyond the image, and none steps over one as large as a dilation.
    const bool overlaps = top < reach_y() && bottom < reach_y() && left < reach_x() && right < reach_x();
    const auto some = [](const Taps& taps) { return taps.begin < taps.end; };
    if (!overlaps || x.height < dilation_y)
        for (size_t row = 0; row < out.height; ++row)
            if (!some(rows_inside(row, x))) return false;
    if (!overlaps || x.width < dilation_x)
        for (size_t column = 0; column < out.width; ++column)
            if (!some(columns_inside(column, x))) return false;
    return true;
}

Shape Window::output(const Shape& x, size_t channels) const {
    return {x.batch, channels, out_size("height", top + x.height + bottom, reach_y(), stride_y),
            out_size("width", left + x.width + right, reach_x(), stride_x)};
}

} // namespace hc
