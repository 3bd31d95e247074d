#include "ops/frame.h"

#include <math.h>
#include <string.h>

#include "ops/parallel.h"
#include "ops/quantize.h"

namespace hc {
namespace {

constexpr double kMaximumNs = 0.05; // for one value
constexpr double kCopyNs = 0.5;     // for one value, transposed

size_t size_in(const char* what, int64_t value, int64_t least) {
    if (value < least || value > INT32_MAX)
        fail(HC_INVALID_ARGUMENT, "%s is %lld; wanted %lld or more", what, static_cast<long long>(value),
             static_cast<long long>(least));
    return static_cast<size_t>(value);
}

size_t out_size(const char* what, size_t frame, size_t taps, size_t dilation, size_t stride) {
    const size_t reach = product(taps - 1, dilation) + 1;
    if (reach > frame)
        fail(HC_INVALID_ARGUMENT, "a window that spans %zu does not fit the padded %s of %zu", reach, what, frame);
    return (frame - reach) / stride + 1;
}

// body(image, row of the frame, row of the image or -1 in the padding).
template <class Body>
void each_frame_row(const Geometry& g, const hc_exec* exec, const Body& body) {
    const double ns = static_cast<double>(g.frame_width * g.channels) * kCopyNs;
    parallel(exec, product(g.batch, g.frame_height), ns, [&](size_t begin, size_t end) {
        for (size_t unit = begin; unit < end; ++unit) {
            const size_t row = unit % g.frame_height;
            const bool inside = row >= g.top && row - g.top < g.height;
            body(unit / g.frame_height, row, inside ? static_cast<ptrdiff_t>(row - g.top) : ptrdiff_t{-1});
        }
    });
}

} // namespace

Geometry::Geometry(const hc_conv_desc* desc) {
    if (!desc || desc->size != sizeof(hc_conv_desc)) fail(HC_INVALID_ARGUMENT, "desc is null or of another version");
    batch = size_in("batch", desc->batch, 0);
    channels = size_in("channels", desc->channels, 1);
    height = size_in("height", desc->height, 0);
    width = size_in("width", desc->width, 0);
    taps_y = size_in("kernel height", desc->kernel[0], 1);
    taps_x = size_in("kernel width", desc->kernel[1], 1);
    stride_y = size_in("vertical stride", desc->strides[0], 1);
    stride_x = size_in("horizontal stride", desc->strides[1], 1);
    dilation_y = size_in("vertical dilation", desc->dilations[0], 1);
    dilation_x = size_in("horizontal dilation", desc->dilations[1], 1);
    top = size_in("top padding", desc->pads[0], 0);
    left = size_in("left padding", desc->pads[1], 0);
    frame_height = top + height + size_in("bottom padding", desc->pads[2], 0);
    frame_width = left + width + size_in("right padding", desc->pads[3], 0);
    out_height = out_size("height", frame_height, taps_y, dilation_y, stride_y);
    out_width = out_size("width", frame_width, taps_x, dilation_x, stride_x);
    product(product(batch, frame_height, frame_width), channels, sizeof(float));
}

Geometry Geometry::flattened() const {
    Geometry flat = *this;
    if (taps_y != 1 || taps_x != 1 || out_height != height || out_width != width || stride_y != 1 || stride_x != 1)
        return flat;
    flat.height = flat.frame_height = flat.out_height = 1;
    flat.width = flat.frame_width = flat.out_width = height * width;
    return flat;
}

void fill_frames(const Geometry& g, const float* x, float* frames, const hc_exec* exec) {
    each_frame_row(g, exec, [&](size_t image, size_t row, ptrdiff_t from) {
        float* to = frames + (image * g.frame_height + row) * g.frame_width * g.channels;
        memset(to, 0, g.frame_width * g.channels * sizeof *to);
        if (from < 0) return;
        to += g.left * g.channels;
        for (size_t c = 0; c < g.channels; ++c) {
            const float* line = x + ((image * g.channels + c) * g.height + static_cast<size_t>(from)) * g.width;
            for (size_t i = 0; i < g.width; ++i) to[i * g.channels + c] = line[i];
        }
    });
}

Frames::Frames(const Geometry& g, const hc_weight& weight, const float* x, const hc_exec* exec)
    : geometry(g),
      values(product(g.batch, g.frame_size()) + kFrameSlack),
      pixel_sums(product(g.batch, g.frame_pixels())),
      scale(g.batch) {
    const Rowwise& rowwise = weight.kernels.rowwise;
    const size_t plane = g.height * g.width;
    Scratch<uint32_t> largest(product(g.batch, g.channels));
    parallel(exec, g.batch * g.channels, static_cast<double>(plane) * kMaximumNs, [&](size_t begin, size_t end) {
        for (size_t i = begin; i < end; ++i) largest[i] = rowwise.largest(x + i * plane, plane);
    });
    Scratch<float> to_int8(g.batch);
    for (size_t image = 0; image < g.batch; ++image) {
        uint32_t most = 0;
        for (size_t c = 0; c < g.channels; ++c)
            if (largest[image * g.channels + c] > most) most = largest[image * g.channels + c];
        const QuantScale found = quant_scale(most);
        to_int8[image] = found.to;
        scale[image] = found.from;
    }
    each_frame_row(g, exec, [&](size_t image, size_t row, ptrdiff_t from) {
        const size_t pixel = (image * g.frame_height + row) * g.frame_width;
        memset(&values[pixel * g.channels], 0, g.frame_width * g.channels);
        memset(&pixel_sums[pixel], 0, g.frame_width * sizeof(int32_t));
        if (from < 0 || isnan(scale[image])) return;
        const float* line = x + image * g.channels * plane + static_cast<size_t>(from) * g.width;
        rowwise.quantize_channels(line, plane, g.channels, g.width, to_int8[image],
                                  &values[(pixel + g.left) * g.channels], g.channels, &pixel_sums[pixel + g.left]);
    });
}

void Frames::window_sums(size_t image, size_t row, size_t column, size_t count, int32_t* windows) const {
    const Geometry& g = geometry;
    const int32_t* first = &pixel_sums[g.first_pixel(image, row, column)];
    memset(windows, 0, count * sizeof *windows);
    for (size_t i = 0; i < g.taps_y; ++i)
        for (size_t j = 0; j < g.taps_x; ++j) {
            const int32_t* from = first + i * g.dilation_y * g.frame_width + j * g.dilation_x;
            for (size_t w = 0; w < count; ++w) windows[w] += from[w * g.stride_x];
        }
}

} // namespace hc

extern "C" hc_code hc_conv2d_output(const hc_conv_desc* desc, int64_t* height, int64_t* width, hc_error* error) {
    return hc::guarded(error, [&] {
        const hc::Geometry g(desc);
        if (height) *height = static_cast<int64_t>(g.out_height);
        if (width) *width = static_cast<int64_t>(g.out_width);
    });
}
