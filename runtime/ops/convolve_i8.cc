// Convolutions of images in 8 bits.
#include <string.h>

#include "ops/conv_units.h"
#include "ops/convolve.h"
#include "ops/multiply.h"
#include "ops/parallel.h"
#include "ops/scratch.h"

namespace hc {
namespace {

constexpr size_t kCopySlack = 16; // bytes

// The first value of the window of an output pixel, for channel 0.
const uint8_t* window_of(const Window& window, const ByteImages& x, size_t image, size_t row, size_t column) {
    return x.pixel(image, static_cast<ptrdiff_t>(row * window.stride_y - window.top),
                   static_cast<ptrdiff_t>(column * window.stride_x - window.left));
}

// One thread's view of the windows of a unit.
class Windows {
   public:
    Windows(const Window& window, const ByteImages& x, size_t width) : window_(window), x_(x), width_(width) {}

    // The first values of the windows of a unit, for channel 0.
    void locate(const Unit& unit) {
        const size_t step = window_.stride_x * x_.shape.channels;
        each_row(unit, width_, [&](size_t m, size_t row, size_t column, size_t count) {
            const uint8_t* from = window_of(window_, x_, unit.image, row, column);
            for (size_t i = 0; i < count; ++i, from += step) first[m + i] = from;
        });
    }

    const uint8_t* first[kRowsAtOnce];

   private:
    const Window& window_;
    const ByteImages& x_;
    size_t width_;
};

// Windows copied to rows of `columns` bytes, zeros at the end: for runs that do not fit whole blocks of codes. Copies 16
// bytes at a time, the same bytes of every window after one another: reads and writes go up to kCopySlack beyond the end,
// so rows are that much further apart.
void gather(const uint8_t* const* first, size_t channel, const Runs& runs, size_t count, size_t columns, uint8_t* to) {
    constexpr size_t step = 16;
    const size_t pitch = columns + kCopySlack;
    uint8_t* at = to;
    for (const size_t offset : runs.offset) {
        for (size_t i = 0; i < runs.length; i += step)
            for (size_t m = 0; m < count; ++m) memcpy(at + m * pitch + i, first[m] + channel + offset + i, step);
        at += runs.length;
    }
    for (uint8_t* end = to + columns; at < end; at += step)
        for (size_t m = 0; m < count; ++m) memset(at + m * pitch, 0, step);
}

// By image and pair; none unless sums become bytes in one step.
std::vector<Levels> levels_of_images(const hc_weight& weight, const ByteImages& x, const Activation& activation,
                                     const ConvTarget& to) {
    std::vector<Levels> levels;
    if (!to.images || !activation.is_clip()) return levels;
    levels.reserve(product(x.shape.batch, weight.pairs));
    for (size_t image = 0; image < x.shape.batch; ++image) {
        const Quant residual = to.byte_residual ? to.byte_residual->quant[image] : Quant{};
        for (size_t pair = 0; pair < weight.pairs; ++pair)
            levels.push_back(levels_of(weight, pair, x.quant[image], activation, to.images->quant[image], residual));
    }
    return levels;
}

// The target of a unit: row m is its pixel m.
class UnitTarget {
   public:
    UnitTarget(const hc_weight& weight, const Shape& out, const std::vector<Levels>& levels, const ConvTarget& to,
               const Unit& unit)
        : to_(to),
          levels_(levels.empty() ? nullptr : &levels[unit.image * weight.pairs]),
          pitch_(to.channels_last ? weight.rows : out.plane()) {
        const size_t first = unit.image * out.plane() + unit.first;
        start_ = to.channels_last ? first * weight.rows : unit.image * out.image() + unit.first;
        if (to.images) {
            locate(*to.images, unit, out.width, pixel_);
            quant_ = to.images->quant[unit.image];
        }
        if (to.byte_residual) {
            locate(*to.byte_residual, unit, out.width, residual_);
            byte_residual_ = {residual_, to.byte_residual->quant[unit.image]};
        }
    }
    UnitTarget(const UnitTarget&) = delete;

    // body(target), of whichever kind it is.
    template <class Body>
    void visit(const Body& body) const {
        if (to_.images)
            body(ByteTarget{pixel_, quant_, byte_residual_, levels_});
        else
            body(FloatTarget{to_.y + start_, pitch_, !to_.channels_last, to_.residual ? to_.residual + start_ : nullptr,
                             byte_residual_});
    }

   private:
    template <class T>
    static void locate(const ByteImages& images, const Unit& unit, size_t width, T** pixel) {
        each_row(unit, width, [&](size_t m, size_t row, size_t column, size_t count) {
            T* from = images.pixel(unit.image, static_cast<ptrdiff_t>(row), static_cast<ptrdiff_t>(column));
            for (size_t i = 0; i < count; ++i, from += images.shape.channels) pixel[m + i] = from;
        });
    }

    const ConvTarget& to_;
    const Levels* levels_;
    size_t pitch_, start_;
    Quant quant_{};
    ByteResidual byte_residual_;
    uint8_t* pixel_[kRowsAtOnce];
    const uint8_t* residual_[kRowsAtOnce];
};

// A convolution whose groups are one channel and one filter each.
void depthwise(const hc_weight& weight, const Window& window, const ByteImages& x, const Shape& out,
               const Activation& activation, const ConvTarget& to, const hc_exec* exec) {
    const Runs runs(window, x, 1); // single taps
    std::vector<size_t> tap = runs.offset;
    const size_t quads = ceil_div(tap.size(), 4);
    tap.resize(quads * 4, tap[0]); // their weights are zero
    const std::vector<Levels> levels = levels_of_images(weight, x, activation, to);
    const Units units(weight, out);
    parallel(exec, units.count, units.ns, [&](size_t begin, size_t end) {
        alignas(64) int32_t sum[kRowsAtOnce * kPair];
        float scale[kRowsAtOnce];
        for (size_t i = begin; i < end; ++i) {
            const Unit unit = units[i];
            for (float& s : scale) s = x.quant[unit.image].scale;
            const RowQuant quant{scale, x.quant[unit.image].zero};
            UnitTarget(weight, out, levels, to, unit).visit([&](const auto& target) {
                for (size_t pair = unit.first_pair; pair < unit.last_pair; ++pair) {
                    each_row(unit, out.width, [&](size_t m, size_t row, size_t column, size_t count) {
                        const uint8_t* from = window_of(window, x, unit.image, row, column) + pair * kPair;
                        weight.kernels.depthwise({&weight.taps[pair * quads * 4 * kPair], from,
                                                  window.stride_x * x.shape.channels, tap.data(), quads, window.taps(),
                                                  window.taps_x, sum + m * kPair, count});
                    });
                    finish(weight, pair, sum, 0, unit.count, quant, activation, target);
                }
            });
        }
    });
}

} // namespace

void convolve(const hc_weight& weight, const Window& window, const ByteImages& x, const Activation& activation,
              const ConvTarget& to, const hc_exec* exec) {
    const Shape out = conv_output(weight, window, x.shape);
    if (!out.count()) return;
    if (weight.depthwise() && x.shape.channels == weight.groups)
        return depthwise(weight, window, x, out, activation, to, exec);
    const size_t channels = x.shape.channels / weight.groups, padded = weight.blocks * weight.period;
    const Runs runs(window, x, channels);
    const bool mixed = weight.groups > 1 && weight.rows / weight.groups % kPair; // pairs of more than one group
    const bool in_place = !mixed && runs.length % weight.period == 0 && weight.columns <= kSumColumns;
    const std::vector<Levels> levels = levels_of_images(weight, x, activation, to);
    const Units units(weight, out);
    parallel(exec, units.count, units.ns, [&](size_t begin, size_t end) {
        Windows windows(window, x, out.width);
        Scratch<uint8_t> copied(in_place ? 0 : product(kRowsAtOnce, padded + kCopySlack));
        const uint8_t* row[kRowsAtOnce];
        float scale[kRowsAtOnce];
        for (size_t i = begin; i < end; ++i) {
            const Unit unit = units[i];
            windows.locate(unit);
            const Quant& quant = x.quant[unit.image];
            for (float& s : scale) s = quant.scale;
            size_t ready = SIZE_MAX;
            const auto rows_of = [&](size_t group) -> ByteRows {
                if (group != ready && !in_place)
                    gather(windows.first, group * channels, runs, unit.count, padded, copied.data());
                if (group != ready)
                    for (size_t m = 0; m < unit.count; ++m)
                        row[m] = in_place ? windows.first[m] + group * channels : &copied[m * (padded + kCopySlack)];
                ready = group;
                if (in_place) return {row, runs.offset.data(), runs.offset.size(), runs.length};
                return {row, kNoOffset, 1, padded};
            };
            UnitTarget(weight, out, levels, to, unit).visit([&](const auto& target) {
                for (size_t pair = unit.first_pair; pair < unit.last_pair; ++pair) {
                    if (!mixed) {
                        const ByteRows rows = rows_of(Groups(weight, pair).begin);
                        multiply_and_finish(weight, pair, rows, unit.count, {scale, quant.zero}, 0, activation, target);
                        continue;
                    }
                    alignas(64) float sum[kRowsAtOnce * kPair];
                    each_group(weight, pair, unit.count, sum, [&](size_t group, float* part) {
                        multiply_wide(weight, pair, rows_of(group), unit.count, quant.zero, part);
                    });
                    finish(weight, pair, sum, 0, unit.count, {scale, 0}, activation, target);
                }
            });
        }
    });
}

} // namespace hc
