// hc_conv2d: implicit GEMM. The image is copied once to a padded NHWC frame (quantised there for HC_INT8); the rows
// of the product are windows of the frame, read in place: neighbouring taps of a window row are neighbours in memory.
#include <string.h>

#include "layout.h"
#include "ops/frame.h"
#include "ops/multiply.h"
#include "ops/parallel.h"
#include "ops/scratch.h"

namespace hc {
namespace {

constexpr size_t kGroupBytes = 256 << 10; // codes that stay in the L2 cache while the outputs' rows pass by
constexpr size_t kWantedUnits = 16;       // below this, groups are made smaller for the sake of parallel work

// The runs of one window: whole window rows, or single taps where a dilation parts them.
class Window {
   public:
    Window(const Geometry& g)
        : length(g.dilation_x == 1 ? g.taps_x * g.channels : g.channels),
          count_(g.dilation_x == 1 ? g.taps_y : g.taps_y * g.taps_x),
          offsets_(count_) {
        const size_t per_row = count_ / g.taps_y;
        for (size_t i = 0; i < count_; ++i)
            offsets_[i] = (i / per_row * g.dilation_y * g.frame_width + i % per_row * g.dilation_x) * g.channels;
    }

    template <class T>
    Rows<T> rows(const T* first, const Geometry& g) {
        return {first, g.stride_x * g.channels, offsets_.data(), count_, length};
    }

    const size_t length;

   private:
    size_t count_;
    Scratch<size_t> offsets_;
};

// body(image, output row, first pair, last pair) for every unit of work, units of one group of pairs side by side.
template <class Body>
void each_unit(const hc_weight& weight, const Geometry& g, const hc_exec* exec, const Body& body) {
    const size_t per_group = weight.pair_bytes() < kGroupBytes ? kGroupBytes / (weight.pair_bytes() + 1) + 1 : 1;
    const size_t lines = product(g.batch, g.out_height);
    size_t groups = ceil_div(weight.pairs, per_group);
    if (lines * groups < kWantedUnits) groups = weight.pairs < kWantedUnits ? weight.pairs : kWantedUnits;
    const double ns = weight.pair_ns(g.out_width) * static_cast<double>(weight.pairs) / static_cast<double>(groups);
    parallel(exec, product(lines, groups), ns, [&](size_t begin, size_t end) {
        for (size_t unit = begin; unit < end; ++unit) {
            const size_t row = unit % g.out_height, group = unit / g.out_height % groups;
            body(unit / g.out_height / groups, row, weight.pairs * group / groups, weight.pairs * (group + 1) / groups);
        }
    });
}

Target target(const Geometry& g, float* y, size_t rows, size_t image, size_t row, size_t pair) {
    const size_t plane = g.out_height * g.out_width;
    return {y + (image * rows + pair * kPair) * plane + row * g.out_width, plane, true};
}

void conv_f32(const hc_weight& weight, const Geometry& g, const float* x, float* y, const hc_exec* exec) {
    Scratch<float> frames(product(g.batch, g.frame_size()));
    fill_frames(g, x, frames.data(), exec);
    Window window(g);
    each_unit(weight, g, exec, [&](size_t image, size_t row, size_t first, size_t last) {
        const Rows<float> rows = window.rows(&frames[image * g.frame_size() + g.window(row)], g);
        for (size_t pair = first; pair < last; ++pair)
            multiply_f32(weight, pair, rows, g.out_width, target(g, y, weight.rows, image, row, pair));
    });
}

// Windows whose runs do not fit whole blocks of codes are copied, a few at a time, to rows that do.
void gather(const Rows<int8_t>& windows, size_t count, size_t pitch, int8_t* to) {
    for (size_t m = 0; m < count; ++m, to += pitch) {
        int8_t* end = to;
        for (size_t s = 0; s < windows.segments; ++s, end += windows.length)
            memcpy(end, windows.from(m).data + windows.segment[s], windows.length);
        memset(end, 0, static_cast<size_t>(to + pitch - end));
    }
}

void conv_i8(const hc_weight& weight, const Geometry& g, const float* x, float* y, const hc_exec* exec) {
    Scratch<int8_t> frames(product(g.batch, g.frame_size()));
    Scratch<int32_t> pixel_sums(product(g.batch, g.frame_height, g.frame_width));
    Scratch<float> scale(g.batch);
    fill_frames(g, weight, x, frames.data(), pixel_sums.data(), scale.data(), exec);
    Window window(g);
    const size_t chunks = chunks_of(weight), padded = weight.blocks * weight.period;
    const bool in_place = chunks == 1 && window.length % weight.period == 0;
    each_unit(weight, g, exec, [&](size_t image, size_t row, size_t first, size_t last) {
        const size_t at_once = in_place ? g.out_width : kRowsAtOnce;
        Scratch<int8_t> gathered(in_place ? 0 : kRowsAtOnce * padded);
        Scratch<int32_t> sums(product(at_once, chunks));
        Scratch<float> scales(at_once);
        for (size_t i = 0; i < at_once; ++i) scales[i] = scale[image];
        for (size_t left = 0; left < g.out_width; left += at_once) {
            const size_t count = g.out_width - left < at_once ? g.out_width - left : at_once;
            Rows<int8_t> rows = window.rows(&frames[image * g.frame_size() + g.window(row)], g).from(left);
            if (in_place) {
                window_sums(g, &pixel_sums[image * g.frame_height * g.frame_width], row, sums.data());
            } else {
                gather(rows, count, padded, gathered.data());
                rows = {gathered.data(), padded, kNoOffset, 1, padded};
                for (size_t i = 0; i < count * chunks; ++i) {
                    const size_t begin = i % chunks * kSumColumns;
                    sums[i] = 0;
                    for (size_t k = begin; k < padded && k < begin + kSumColumns; ++k)
                        sums[i] += gathered[i / chunks * padded + k];
                }
            }
            for (size_t pair = first; pair < last; ++pair) {
                Target to = target(g, y, weight.rows, image, row, pair);
                to.y += left;
                multiply_i8(weight, pair, {rows, sums.data(), scales.data()}, count, to);
            }
        }
    });
}

}  // namespace
}  // namespace hc

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
