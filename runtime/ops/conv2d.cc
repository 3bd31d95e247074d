// hc_conv2d: images are copied once, channels innermost (to 8 bits for HC_INT8), unless they lie so already; then convolved.
#include "ops/convolve.h"
#include "ops/scratch.h"

namespace hc {
namespace {

// A window of one pixel that visits every pixel: one long row of them.
Shape flattened(const Window& w, const Shape& x) {
    const bool visits_all = w.taps() == 1 && w.stride_y == 1 && w.stride_x == 1 && !(w.top | w.left | w.bottom | w.right);
    return visits_all ? Shape(x.batch, x.channels, x.plane() ? 1 : 0, x.plane()) : x;
}

void conv_f32(const hc_weight& weight, const Window& window, const Shape& shape, bool channels_last, const float* x,
              const Activation& activation, const ConvTarget& to, const hc_exec* exec) {
    if (channels_last) return convolve(weight, window, FloatImages{shape, x}, activation, to, exec);
    Scratch<float> values(product(shape.count(), sizeof *x) / sizeof *x);
    interleave(shape, x, weight.kernels.rowwise, values.data(), exec);
    convolve(weight, window, FloatImages{shape, values.data()}, activation, to, exec);
}

void conv_i8(const hc_weight& weight, const Window& window, const Shape& shape, const float* x,
             const Activation& activation, const ConvTarget& to, const hc_exec* exec) {
    ByteImages images;
    images.shape = shape;
    images.margin = Margin::of(window);
    Scratch<uint8_t> values(images.size());
    Scratch<Quant> quant(shape.batch);
    images.values = values.data();
    images.quant = quant.data();
    find_symmetric(shape, x, weight.kernels.rowwise, images.quant, exec);
    fill(images, x, weight.kernels.rowwise, exec);
    convolve(weight, window, images, activation, to, exec);
}

Shape shape_of(const hc_conv_desc* desc) {
    if (!desc || desc->size != sizeof(hc_conv_desc)) fail(HC_INVALID_ARGUMENT, "desc is null or of another version");
    if (desc->channels_last & ~(HC_LAST_X | HC_LAST_Y))
        fail(HC_INVALID_ARGUMENT, "channels_last is %u; wanted HC_LAST_X, HC_LAST_Y, both or 0", desc->channels_last);
    return Shape(desc->x);
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

} // namespace hc

extern "C" hc_code hc_conv2d_output(const hc_conv_desc* desc, int64_t* height, int64_t* width, hc_error* error) {
    using namespace hc;
    return guarded(error, [&] {
        const Shape x = shape_of(desc);
        const Shape out = Window(desc->window).output(x, 1);
        if (height) *height = static_cast<int64_t>(out.height);
        if (width) *width = static_cast<int64_t>(out.width);
    });
}

extern "C" hc_code hc_conv2d(const hc_weight* weight, const hc_conv_desc* desc, const float* x, float* y,
                             const hc_epilogue* epilogue, const hc_exec* exec, hc_error* error) {
    using namespace hc;
    return guarded(error, [&] {
        if (!weight) fail(HC_INVALID_ARGUMENT, "weight is null");
        const Shape whole = shape_of(desc);
        const Window window(desc->window);
        const Shape out = conv_output(*weight, window, whole);
        const Activation activation = activation_of(epilogue);
        if ((whole.count() && !x) || (out.count() && !y)) fail(HC_INVALID_ARGUMENT, "x or y is null");
        if (!out.count()) return;
        const ConvTarget to{y, (desc->channels_last & HC_LAST_Y) != 0, epilogue ? epilogue->residual : nullptr, nullptr,
                            nullptr};
        const Shape shape = flattened(window, whole);
        if (!weight->int8)
            return conv_f32(*weight, window, shape, desc->channels_last & HC_LAST_X, x, activation, to, exec);
        if (desc->channels_last) fail(HC_INVALID_ARGUMENT, "channels_last is %u; wanted 0 for HC_INT8", desc->channels_last);
        conv_i8(*weight, window, shape, x, activation, to, exec);
    });
}
