#include "ops/convolve.h"

#include <string.h>

#include "layout.h"
#include "ops/multiply.h"
#include "ops/parallel.h"
#include "ops/scratch.h"

namespace hc {
namespace {

constexpr size_t kGroupBytes = 256 << 10; // codes that stay in the L2 cache while pixels pass by
constexpr size_t kWantedUnits = 16;       // with fewer, pairs are spread over more units for the sake of parallel work
constexpr size_t kCopySlack = 16;          // values
constexpr double kDepthwiseRate = 10;     // multiply-adds per nanosecond

// Pixels [first, first + count) of one image of the output, for some of the pairs.
struct Unit {
    size_t image, first, count;
    size_t first_pair, last_pair;
};

// body(m, row, column, count): pixels [m, m + count) of the unit lie in one row of `width` pixels, from `column`.
template <class Body>
void each_row(const Unit& unit, size_t width, const Body& body) {
    size_t row = unit.first / width, column = unit.first % width;
    for (size_t m = 0; m < unit.count; ++row, column = 0) {
        const size_t count = smaller(width - column, unit.count - m);
        body(m, row, column, count);
        m += count;
    }
}

// The work cut into units: those of one group of pairs are neighbours.
class Units {
   public:
    Units(const hc_weight& weight, const Shape& out) : pairs_(weight.pairs), pixels_(out.plane()) {
        const size_t wanted = ceil_div(pixels_, kRowsAtOnce);
        run_ = wanted ? smaller(round_up(ceil_div(pixels_, wanted), kRowBlock), kRowsAtOnce) : 1; // whole blocks of rows
        runs_ = ceil_div(pixels_, run_);
        const size_t fit = kGroupBytes / (weight.pair_bytes() + 1) + 1;
        const size_t lines = product(out.batch, runs_);
        parts_ = ceil_div(pairs_, fit);
        if (lines * parts_ < kWantedUnits) parts_ = smaller(pairs_, kWantedUnits);
        count = product(lines, parts_);
        ns = ns_of(weight, static_cast<double>(smaller(run_, pixels_))) * static_cast<double>(pairs_) /
             static_cast<double>(parts_ ? parts_ : 1);
    }

    Unit operator[](size_t i) const {
        const size_t run = i % runs_, part = i / runs_ % parts_, first = run * run_;
        return {i / runs_ / parts_, first, smaller(pixels_ - first, run_), pairs_ * part / parts_,
                pairs_ * (part + 1) / parts_};
    }

    size_t count;
    double ns; // of one

   private:
    static double ns_of(const hc_weight& weight, double rows) {
        if (!weight.depthwise()) return weight.pair_ns(static_cast<size_t>(rows));
        return static_cast<double>(kPair * weight.columns) * rows / kDepthwiseRate;
    }

    size_t pairs_, pixels_, run_, runs_, parts_;
};

// Groups of channels that the rows of a pair belong to.
struct Groups {
    Groups(const hc_weight& weight, size_t pair)
        : rows(weight.rows / weight.groups),
          begin(pair * kPair / rows),
          end((pair * kPair + static_cast<size_t>(weight.columns_of(pair)) - 1) / rows + 1) {}

    size_t rows; // of a group
    size_t begin, end;
};

// The first value of the window of an output pixel, for channel 0.
template <class T>
const T* window_of(const Window& window, const Images<T>& x, size_t image, size_t row, size_t column) {
    return x.pixel(image, static_cast<ptrdiff_t>(row * window.stride_y - window.top),
                   static_cast<ptrdiff_t>(column * window.stride_x - window.left));
}

// One thread's view of the windows of a unit.
template <class T>
class Windows {
   public:
    Windows(const Window& window, const Images<T>& x, size_t width) : window_(window), x_(x), width_(width) {}

    // The first values of the windows of a unit, for channel 0.
    void locate(const Unit& unit) {
        const size_t step = window_.stride_x * x_.shape.channels;
        each_row(unit, width_, [&](size_t m, size_t row, size_t column, size_t count) {
            const T* from = window_of(window_, x_, unit.image, row, column);
            for (size_t i = 0; i < count; ++i, from += step) first[m + i] = from;
        });
    }

    const T* first[kRowsAtOnce];

   private:
    const Window& window_;
    const Images<T>& x_;
    size_t width_;
};

// Windows copied to rows of `columns` values, zeros at the end: for runs that do not fit whole blocks of codes, and for
// floats. Copies 16 bytes at a time, the same bytes of every window after one another: reads and writes go up to
// kCopySlack beyond the end, so rows are that much further apart.
template <class T>
void gather(const T* const* first, size_t channel, const Runs& runs, size_t count, size_t columns, T* to) {
    constexpr size_t step = 16 / sizeof(T);
    const size_t pitch = columns + kCopySlack;
    T* at = to;
    for (const size_t offset : runs.offset) {
        for (size_t i = 0; i < runs.length; i += step)
            for (size_t m = 0; m < count; ++m) memcpy(at + m * pitch + i, first[m] + channel + offset + i, 16);
        at += runs.length;
    }
    const T zeros[step] = {};
    for (T* end = to + columns; at < end; at += step)
        for (size_t m = 0; m < count; ++m) memcpy(at + m * pitch, zeros, sizeof zeros);
}

// sum (m, 32) from the sums of each group of channels: multiply(group, sum).
template <class Sum, class Multiply>
void each_group(const hc_weight& weight, size_t pair, size_t m, Sum* sum, const Multiply& multiply) {
    const Groups groups(weight, pair);
    if (groups.end - groups.begin == 1) return multiply(groups.begin, sum);
    alignas(64) Sum part[kRowsAtOnce * kPair];
    for (size_t group = groups.begin; group < groups.end; ++group) {
        multiply(group, part);
        const size_t begin = group * groups.rows > pair * kPair ? group * groups.rows - pair * kPair : 0;
        const size_t end = smaller((group + 1) * groups.rows - pair * kPair, kPair);
        for (size_t i = 0; i < m; ++i)
            for (size_t n = begin; n < end; ++n) sum[i * kPair + n] = part[i * kPair + n];
    }
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

// A convolution whose groups are one channel and one filter each: sums of a pair's channels, from
// multiply(pair, first window, windows, sum).
template <class Sum, class T, class Multiply, class QuantOf>
void depthwise(const hc_weight& weight, const Window& window, const Images<T>& x, const Shape& out,
               const Activation& activation, const std::vector<Levels>& levels, const ConvTarget& to,
               const QuantOf& quant_of, const hc_exec* exec, const Multiply& multiply) {
    const Units units(weight, out);
    parallel(exec, units.count, units.ns, [&](size_t begin, size_t end) {
        alignas(64) Sum sum[kRowsAtOnce * kPair];
        float scale[kRowsAtOnce];
        for (size_t i = begin; i < end; ++i) {
            const Unit unit = units[i];
            const RowQuant quant = quant_of(unit.image, scale);
            UnitTarget(weight, out, levels, to, unit).visit([&](const auto& target) {
                for (size_t pair = unit.first_pair; pair < unit.last_pair; ++pair) {
                    each_row(unit, out.width, [&](size_t m, size_t row, size_t column, size_t count) {
                        multiply(pair, window_of(window, x, unit.image, row, column) + pair * kPair, count,
                                 sum + m * kPair);
                    });
                    finish(weight, pair, sum, 0, unit.count, quant, activation, target);
                }
            });
        }
    });
}

void depthwise(const hc_weight& weight, const Window& window, const Images<float>& x, const Shape& out,
               const Activation& activation, const ConvTarget& to, const hc_exec* exec) {
    const Runs runs(window, x, 1); // single taps
    const size_t taps = runs.offset.size();
    const auto none = [](size_t, float*) { return RowQuant{}; };
    depthwise<float>(weight, window, x, out, activation, {}, to, none, exec,
                     [&](size_t pair, const float* from, size_t count, float* sum) {
                         const float* values = weight.dense ? weight.panel(pair) : &weight.f32_taps[pair * taps * kPair];
                         weight.kernels.depthwise_f32({values, from, window.stride_x * x.shape.channels,
                                                       runs.offset.data(), taps, sum, count});
                     });
}

void depthwise(const hc_weight& weight, const Window& window, const ByteImages& x, const Shape& out,
               const Activation& activation, const ConvTarget& to, const hc_exec* exec) {
    const Runs runs(window, x, 1); // single taps
    std::vector<size_t> tap = runs.offset;
    const size_t quads = ceil_div(tap.size(), 4);
    tap.resize(quads * 4, tap[0]); // their weights are zero
    const auto quant_of = [&](size_t image, float* scale) {
        for (size_t m = 0; m < kRowsAtOnce; ++m) scale[m] = x.quant[image].scale;
        return RowQuant{scale, x.quant[image].zero};
    };
    const std::vector<Levels> levels = levels_of_images(weight, x, activation, to);
    depthwise<int32_t>(weight, window, x, out, activation, levels, to, quant_of, exec,
                       [&](size_t pair, const uint8_t* from, size_t count, int32_t* sum) {
                           weight.kernels.depthwise({&weight.taps[pair * quads * 4 * kPair], from,
                                                     window.stride_x * x.shape.channels, tap.data(), quads,
                                                     window.taps(), window.taps_x, sum, count});
                       });
}

} // namespace

Shape conv_output(const hc_weight& weight, const Window& window, const Shape& x) {
    if (x.channels % weight.groups)
        fail(HC_INVALID_ARGUMENT, "%zu channels in %zu groups", x.channels, weight.groups);
    const size_t channels = x.channels / weight.groups;
    if (product(window.taps(), channels) != weight.columns)
        fail(HC_INVALID_ARGUMENT, "a window of %zu x %zu x %zu channels; the weight has K = %zu", window.taps_y,
             window.taps_x, channels, weight.columns);
    return window.output(x, weight.rows);
}

void convolve(const hc_weight& weight, const Window& window, const Images<float>& x, const Activation& activation,
              const ConvTarget& to, const hc_exec* exec) {
    const Shape out = conv_output(weight, window, x.shape);
    if (!out.count()) return;
    if (weight.depthwise() && x.shape.channels == weight.groups)
        return depthwise(weight, window, x, out, activation, to, exec);
    const Runs runs(window, x, x.shape.channels / weight.groups);
    const bool in_place = window.taps() == 1 && weight.groups == 1 && out.height == 1; // pixels, one behind another
    const size_t pitch = in_place ? window.stride_x * x.shape.channels : weight.columns + kCopySlack;
    const Units units(weight, out);
    parallel(exec, units.count, units.ns, [&](size_t begin, size_t end) {
        Windows<float> windows(window, x, out.width);
        Scratch<float> copied(in_place ? 0 : product(kRowsAtOnce, pitch));
        alignas(64) float sum[kRowsAtOnce * kPair];
        for (size_t i = begin; i < end; ++i) {
            const Unit unit = units[i];
            windows.locate(unit);
            size_t gathered = SIZE_MAX;
            UnitTarget(weight, out, {}, to, unit).visit([&](const auto& target) {
                for (size_t pair = unit.first_pair; pair < unit.last_pair; ++pair) {
                    each_group(weight, pair, unit.count, sum, [&](size_t group, float* part) {
                        if (group != gathered && !in_place)
                            gather(windows.first, group * (x.shape.channels / weight.groups), runs, unit.count,
                                   weight.columns, copied.data());
                        gathered = group;
                        const FloatRows rows{in_place ? windows.first[0] : copied.data(), pitch};
                        multiply_f32(weight, pair, rows, unit.count, part);
                    });
                    finish(weight, pair, sum, 0, unit.count, {}, activation, target);
                }
            });
        }
    });
}

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
        Windows<uint8_t> windows(window, x, out.width);
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
