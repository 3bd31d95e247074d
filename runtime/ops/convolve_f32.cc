// Convolutions of images of floats. Windows that reach beyond the image are copied, with zeros; so are those of more than
// one tap, but for a depthwise convolution, which reads the others in place.
#include <string.h>

#include "ops/conv_units.h"
#include "ops/convolve.h"
#include "ops/multiply.h"
#include "ops/parallel.h"
#include "ops/scratch.h"

namespace hc {
namespace {

// Some channels of the image, of every tap of a window; those of one tap are `pitch` apart from those of the next.
struct Copied {
    size_t first, count, pitch;
};

// The window at (row, column) of the output, zeros where it reaches beyond the image.
void copy_window(const Window& w, const FloatImages& x, size_t image, size_t row, size_t column,
                 const Copied& channels, float* to) {
    const Window::Taps ys = w.rows_inside(row, x.shape), xs = w.columns_inside(column, x.shape);
    const size_t rows = ys.end - ys.begin, columns = xs.end - xs.begin;
    if (rows * columns < w.taps()) memset(to, 0, w.taps() * channels.pitch * sizeof *to);
    if (!columns) return;
    const bool one_run = w.dilation_x == 1 && channels.pitch == x.shape.channels;
    for (size_t y = ys.begin; y < ys.end; ++y) {
        const float* from = x.pixel(image, row * w.stride_y + y * w.dilation_y - w.top,
                                    column * w.stride_x + xs.begin * w.dilation_x - w.left) +
                            channels.first;
        float* at = to + (y * w.taps_x + xs.begin) * channels.pitch;
        if (one_run) {
            memcpy(at, from, columns * channels.pitch * sizeof *at);
            continue;
        }
        for (size_t i = 0; i < columns; ++i, at += channels.pitch, from += w.dilation_x * x.shape.channels)
            memcpy(at, from, channels.count * sizeof *at);
    }
}

FloatTarget target_of(const hc_weight& weight, const Shape& out, const ConvTarget& to, const Unit& unit) {
    const size_t start = to.channels_last ? (unit.image * out.plane() + unit.first) * weight.rows
                                          : unit.image * out.image() + unit.first;
    return {to.y + start, to.channels_last ? weight.rows : out.plane(), !to.channels_last,
            to.residual ? to.residual + start : nullptr, {}};
}

// Groups are one channel and one filter each.
class Depthwise {
   public:
    Depthwise(const hc_weight& weight, const Window& window, const FloatImages& x)
        : weight_(weight), window_(window), x_(x), first_inside_(ceil_div(window.left, window.stride_x)),
          end_inside_(window.columns_ending_inside(x.shape)), copied_(product(window.taps(), kPair)) {
        for (size_t i = 0; i < window.taps(); ++i) {
            offset_.push_back((i / window.taps_x * window.dilation_y * x.shape.width +
                               i % window.taps_x * window.dilation_x) * x.shape.channels);
            copied_offset_.push_back(i * kPair);
        }
    }

    // sum (count, 32) of the channels of a pair, for outputs of one row, from `column`.
    void operator()(size_t image, size_t pair, size_t row, size_t column, size_t count, float* sum) {
        const size_t taps = window_.taps(), end = column + count;
        const float* values = weight_.dense ? weight_.panel(pair) : &weight_.f32_taps[pair * taps * kPair];
        const Window::Taps ys = window_.rows_inside(row, x_.shape);
        const size_t inside = smaller(end_inside_, end);
        for (; column < end; sum += kPair, ++column) {
            if (column >= first_inside_ && column < inside && ys.begin < ys.end) {
                const float* from = x_.pixel(image, row * window_.stride_y + ys.begin * window_.dilation_y - window_.top,
                                             column * window_.stride_x - window_.left) +
                                    pair * kPair;
                const size_t used = (ys.end - ys.begin) * window_.taps_x, step = window_.stride_x * x_.shape.channels;
                const size_t ready = readable(from + offset_[used - 1], step, inside - column);
                if (ready) {
                    weight_.kernels.depthwise_f32({values + ys.begin * window_.taps_x * kPair, from, step,
                                                   offset_.data(), used, sum, ready});
                    column += ready - 1;
                    sum += (ready - 1) * kPair;
                    continue;
                }
            }
            const size_t channels = static_cast<size_t>(weight_.columns_of(pair));
            copy_window(window_, x_, image, row, column, {pair * kPair, channels, kPair}, copied_.data());
            weight_.kernels.depthwise_f32({values, copied_.data(), 0, copied_offset_.data(), taps, sum, 1});
        }
    }

   private:
    // Of windows whose last taps are `step` apart, those of which the kernel may read 32 channels.
    size_t readable(const float* last, size_t step, size_t count) const {
        const size_t left = static_cast<size_t>(x_.end() - last);
        return left < kPair ? 0 : step ? smaller(count, (left - kPair) / step + 1) : count;
    }

    const hc_weight& weight_;
    const Window& window_;
    const FloatImages& x_;
    size_t first_inside_, end_inside_; // columns whose windows do not reach beyond a row
    Scratch<float> copied_;            // a window
    std::vector<size_t> offset_, copied_offset_; // of the taps
};

void depthwise(const hc_weight& weight, const Window& window, const FloatImages& x, const Shape& out,
               const Activation& activation, const ConvTarget& to, const hc_exec* exec) {
    const Units units(weight, out);
    parallel(exec, units.count, units.ns, [&](size_t begin, size_t end) {
        Depthwise sums(weight, window, x);
        alignas(64) float sum[kRowsAtOnce * kPair];
        for (size_t i = begin; i < end; ++i) {
            const Unit unit = units[i];
            const FloatTarget target = target_of(weight, out, to, unit);
            for (size_t pair = unit.first_pair; pair < unit.last_pair; ++pair) {
                ask_for(weight, pair, 0, unit.count, target);
                each_row(unit, out.width, [&](size_t m, size_t row, size_t column, size_t count) {
                    sums(unit.image, pair, row, column, count, sum + m * kPair);
                });
                finish(weight, pair, sum, 0, unit.count, {}, activation, target);
            }
        }
    });
}

} // namespace

void convolve(const hc_weight& weight, const Window& window, const FloatImages& x, const Activation& activation,
              const ConvTarget& to, const hc_exec* exec) {
    const Shape out = conv_output(weight, window, x.shape);
    if (!out.count()) return;
    if (weight.depthwise() && x.shape.channels == weight.groups)
        return depthwise(weight, window, x, out, activation, to, exec);
    const size_t channels = x.shape.channels / weight.groups;
    // Pixels, one behind another.
    const bool in_place = window.taps() == 1 && weight.groups == 1 && out.height == 1 && x.shape.height == 1 &&
                          !(window.left | window.right);
    const size_t pitch = in_place ? window.stride_x * x.shape.channels : weight.columns;
    const Units units(weight, out);
    parallel(exec, units.count, units.ns, [&](size_t begin, size_t end) {
        Scratch<float> copied(in_place ? 0 : product(kRowsAtOnce, pitch));
        alignas(64) float sum[kRowsAtOnce * kPair];
        for (size_t i = begin; i < end; ++i) {
            const Unit unit = units[i];
            const FloatTarget target = target_of(weight, out, to, unit);
            size_t ready = SIZE_MAX;
            const auto rows_of = [&](size_t group) -> FloatRows {
                if (in_place) return {x.pixel(unit.image, 0, unit.first * window.stride_x), pitch};
                if (group != ready)
                    each_row(unit, out.width, [&](size_t m, size_t row, size_t column, size_t count) {
                        for (size_t j = 0; j < count; ++j)
                            copy_window(window, x, unit.image, row, column + j, {group * channels, channels, channels},
                                        &copied[(m + j) * pitch]);
                    });
                ready = group;
                return {copied.data(), pitch};
            };
            for (size_t pair = unit.first_pair; pair < unit.last_pair; ++pair) {
                ask_for(weight, pair, 0, unit.count, target);
                each_group(weight, pair, unit.count, sum, [&](size_t group, float* part) {
                    multiply_f32(weight, pair, rows_of(group), unit.count, part);
                });
                finish(weight, pair, sum, 0, unit.count, {}, activation, target);
            }
        }
    });
}

} // namespace hc
