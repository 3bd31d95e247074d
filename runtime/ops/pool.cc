// hc_pool: a unit of work is a row of the output.
#include <vector>

#include "ops/images.h"
#include "ops/scratch.h"
#include "ops/weight.h"

namespace hc {
namespace {

constexpr double kTapNs = 0.05; // for one value

// Pointers to the taps of a window, those of some of its rows.
void find_taps(const Window& w, const FloatImages& x, size_t image, size_t row, size_t column, const Window::Taps& ys,
               std::vector<const float*>& taps) {
    const Window::Taps xs = w.columns_inside(column, x.shape);
    taps.clear();
    for (size_t i = ys.begin; i < ys.end; ++i)
        for (size_t j = xs.begin; j < xs.end; ++j)
            taps.push_back(x.pixel(image, row * w.stride_y + i * w.dilation_y - w.top,
                                   column * w.stride_x + j * w.dilation_x - w.left));
}

void pool(const hc_pool_desc& desc, const float* values, float* y, const hc_exec* exec) {
    if (desc.kind != HC_POOL_MAX && desc.kind != HC_POOL_AVERAGE)
        fail(HC_INVALID_ARGUMENT, "kind is %d; wanted HC_POOL_MAX or HC_POOL_AVERAGE", desc.kind);
    const Shape shape(desc.x);
    const Window w(desc.window);
    const Shape out = w.output(shape, shape.channels);
    if (!w.every_place_sees(shape)) fail(HC_INVALID_ARGUMENT, "a window of the pool sees nothing of the image");
    if ((shape.count() && !values) || (out.count() && !y)) fail(HC_INVALID_ARGUMENT, "x or y is null");
    if (!out.count()) return;
    const FloatImages x{shape, values};
    const size_t channels = shape.channels;
    const Rowwise rowwise = select(1, cap_of(desc.isa)).rowwise;
    const double ns = static_cast<double>(product(out.width, channels, w.taps())) * kTapNs;
    parallel(exec, product(out.batch, out.height), ns, [&](size_t begin, size_t end) {
        std::vector<const float*> taps;
        Scratch<float> of_row(channels);
        for (size_t i = begin; i < end; ++i) {
            const size_t image = i / out.height, row = i % out.height;
            const Window::Taps ys = w.rows_inside(row, shape);
            float* to = y + i * out.width * channels;
            for (size_t column = 0; column < out.width; ++column, to += channels) {
                if (desc.kind == HC_POOL_MAX) {
                    find_taps(w, x, image, row, column, ys, taps);
                    rowwise.max_f32(taps.data(), taps.size(), channels, to);
                    continue;
                }
                size_t count = 0;
                for (size_t tap = ys.begin; tap < ys.end; ++tap) { // sums of rows, so that long ones stay exact
                    find_taps(w, x, image, row, column, {tap, tap + 1}, taps);
                    rowwise.sum_f32(taps.data(), taps.size(), channels, count ? of_row.data() : to);
                    if (count) rowwise.add(to, of_row.data(), channels);
                    count += taps.size();
                }
                const float divisor = static_cast<float>(desc.counts_padding ? w.taps() : count);
                for (size_t c = 0; c < channels; ++c) to[c] /= divisor;
            }
        }
    });
}

} // namespace
} // namespace hc

extern "C" hc_code hc_pool(const hc_pool_desc* desc, const float* x, float* y, const hc_exec* exec, hc_error* error) {
    return hc::guarded(error, [&] {
        if (!desc || desc->size != sizeof(hc_pool_desc))
            hc::fail(HC_INVALID_ARGUMENT, "desc is null or of another version");
        hc::pool(*desc, x, y, exec);
    });
}
