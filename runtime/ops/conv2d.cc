// hc_conv2d: implicit GEMM. The image is copied once to a padded NHWC frame (quantised there for HC_INT8); the rows
// of the product are windows of the frame, read in place: neighbouring taps of a window row are neighbours in memory.
#include <string.h>

#include "layout.h"
#include "ops/frame.h"
#include "ops/multiply.h"
#include "ops/parallel.h"
#include "ops/quantize.h"
#include "ops/scratch.h"

namespace hc {
namespace {

constexpr size_t kGroupBytes = 256 << 10; // codes that stay in the L2 cache while rows of the output pass by
constexpr size_t kRunPixels = 256;        // a longer row of the output is cut into runs
constexpr size_t kWantedUnits = 16;       // with fewer, pairs are spread over more units for the sake of parallel work

// The runs of values of one window: whole window rows, or single taps where a dilation parts them.
class Window {
   public:
    explicit Window(const Geometry& g)
        : length(g.dilation_x == 1 ? g.taps_x * g.channels : g.channels),
          count_(g.dilation_x == 1 ? g.taps_y : g.taps_y * g.taps_x),
          pitch_(g.stride_x * g.channels),
          offsets_(count_) {
        const size_t per_row = count_ / g.taps_y;
        for (size_t i = 0; i < count_; ++i)
            offsets_[i] = (i / per_row * g.dilation_y * g.frame_width + i % per_row * g.dilation_x) * g.channels;
    }

    // The windows of consecutive pixels, from the first value of the first.
    template <class T>
    Rows<T> rows(const T* first) const {
        return {first, pitch_, offsets_.data(), count_, length};
    }

    const size_t length;

   private:
    size_t count_, pitch_;
    Scratch<size_t> offsets_;
};

// Pixels [left, left + count) of one row of the output, for some of the pairs.
struct Unit {
    size_t image, row, left, count;
    size_t first_pair, last_pair;
};

// The work cut into units: those of one group of pairs are neighbours.
class Units {
   public:
    Units(const hc_weight& weight, const Geometry& g)
        : pairs_(weight.pairs), rows_(g.out_height), width_(g.out_width), runs_(ceil_div(g.out_width, kRunPixels)) {
        const size_t fit = kGroupBytes / (weight.pair_bytes() + 1) + 1;
        const size_t lines = product(g.batch, rows_, runs_);
        groups_ = ceil_div(pairs_, fit);
        if (lines * groups_ < kWantedUnits) groups_ = pairs_ < kWantedUnits ? pairs_ : kWantedUnits;
        count = product(lines, groups_);
        const size_t pixels = width_ < kRunPixels ? width_ : kRunPixels;
        ns = weight.pair_ns(pixels) * static_cast<double>(pairs_) / static_cast<double>(groups_);
    }

    Unit operator[](size_t i) const {
        const size_t run = i % runs_, row = i / runs_ % rows_, group = i / runs_ / rows_ % groups_;
        const size_t left = run * kRunPixels;
        return {i / runs_ / rows_ / groups_,
                row,
                left,
                width_ - left < kRunPixels ? width_ - left : kRunPixels,
                pairs_ * group / groups_,
                pairs_ * (group + 1) / groups_};
    }

    size_t count;
    double ns; // of one

   private:
    size_t pairs_, rows_, width_, runs_, groups_;
};

Target target(const Geometry& g, const hc_weight& weight, float* y, const Unit& unit, size_t pair) {
    const size_t plane = g.out_height * g.out_width;
    return {y + (unit.image * weight.rows + pair * kPair) * plane + unit.row * g.out_width + unit.left, plane, true};
}

void conv_f32(const hc_weight& weight, const Geometry& g, const float* x, float* y, const hc_exec* exec) {
    Scratch<float> frames(product(g.batch, g.frame_size()));
    fill_frames(g, x, frames.data(), exec);
    const Window window(g);
    const Units units(weight, g);
    parallel(exec, units.count, units.ns, [&](size_t begin, size_t end) {
        for (size_t i = begin; i < end; ++i) {
            const Unit unit = units[i];
            const Rows<float> rows = window.rows(&frames[g.first_value(unit.image, unit.row, unit.left)]);
            for (size_t pair = unit.first_pair; pair < unit.last_pair; ++pair)
                multiply_f32(weight, pair, rows, unit.count, target(g, weight, y, unit, pair));
        }
    });
}

// Windows whose runs do not fit whole blocks of codes, copied to rows that do: `pitch` values each, zeros at the end.
// Copies in steps of 16: reads and writes go up to kFrameSlack beyond the end.
void gather(const Rows<int8_t>& windows, size_t count, size_t pitch, int8_t* to) {
    for (size_t m = 0; m < count; ++m, to += pitch) {
        int8_t* end = to;
        for (size_t s = 0; s < windows.segments; ++s, end += windows.length) {
            const int8_t* from = windows.data + m * windows.pitch + windows.segment[s];
            for (size_t i = 0; i < windows.length; i += 16) memcpy(end + i, from + i, 16);
        }
        for (; end < to + pitch; end += 16) memset(end, 0, 16);
    }
}

void conv_i8(const hc_weight& weight, const Geometry& g, const float* x, float* y, const hc_exec* exec) {
    const Frames frames(g, weight, x, exec);
    const Window window(g);
    const Units units(weight, g);
    const size_t chunks = chunks_of(weight), padded = weight.blocks * weight.period;
    const bool in_place = chunks == 1 && window.length % weight.period == 0;
    parallel(exec, units.count, units.ns, [&](size_t begin, size_t end) {
        Scratch<int8_t> gathered(in_place ? 0 : product(kRunPixels, padded) + kFrameSlack);
        Scratch<int32_t> sums(product(kRunPixels, chunks));
        float scale[kRunPixels];
        for (size_t i = begin; i < end; ++i) {
            const Unit unit = units[i];
            Rows<int8_t> rows = window.rows(&frames.values[g.first_value(unit.image, unit.row, unit.left)]);
            if (!in_place) {
                gather(rows, unit.count, padded, gathered.data());
                rows = {gathered.data(), padded, kNoOffset, 1, padded};
            }
            if (chunks == 1)
                frames.window_sums(unit.image, unit.row, unit.left, unit.count, sums.data());
            else
                chunk_sums(rows, unit.count, chunks, sums.data());
            for (float& s : scale) s = frames.scale[unit.image];
            for (size_t pair = unit.first_pair; pair < unit.last_pair; ++pair)
                multiply_i8(weight, pair, {rows, sums.data(), scale}, unit.count, target(g, weight, y, unit, pair));
        }
    });
}

} // namespace
} // namespace hc

extern "C" hc_code hc_conv2d(const hc_weight* weight, const hc_conv_desc* desc, const float* x, float* y,
                             const hc_exec* exec, hc_error* error) {
    return hc::guarded(error, [&] {
        if (!weight) hc::fail(HC_INVALID_ARGUMENT, "weight is null");
        const hc::Geometry g = hc::Geometry(desc).flattened();
        const size_t columns = hc::product(g.taps_y, g.taps_x, g.channels);
        if (columns != weight->columns)
            hc::fail(HC_INVALID_ARGUMENT, "a window of %zu x %zu x %zu channels; the weight has K = %zu", g.taps_y,
                     g.taps_x, g.channels, weight->columns);
        const size_t in = hc::product(hc::product(g.batch, g.channels, sizeof(float)), g.height, g.width);
        const size_t out = hc::product(hc::product(g.batch, weight->rows, sizeof(float)), g.out_height, g.out_width);
        if ((in && !x) || (out && !y)) hc::fail(HC_INVALID_ARGUMENT, "x or y is null");
        if (!out) return;
        (weight->int8 ? hc::conv_i8 : hc::conv_f32)(*weight, g, x, y, exec);
    });
}
