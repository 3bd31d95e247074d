#include "ops/chain_steps.h"

#include <string.h>

namespace hc {
namespace {

constexpr size_t kValuesAtOnce = 1024;

} // namespace

void Worker::compute(const Step& step, const Sink& sink) {
    switch (step.kind) {
        case HC_STEP_CONV: {
            ConvTarget to;
            to.y = sink.y;
            to.channels_last = sink.channels_last;
            to.images = sink.images;
            if (step.other != kNoTensor) to.byte_residual = &images[step.other];
            return convolve(*step.weight, step.window, images[step.input], step.activation, to, exec);
        }
        case HC_STEP_MAX_POOL: return max_pool(step, sink);
        case HC_STEP_AVERAGE_POOL: return average_pool(step, sink);
        case HC_STEP_GLOBAL_AVERAGE: return global_average(step, sink);
        case HC_STEP_SUBSAMPLE: return subsample(step, sink);
        default: return sum(step, sink);
    }
}

// Real values of `count` neighbouring pixels, activated, to the sink.
void Worker::store(const Step& step, const Sink& sink, size_t image, size_t row, size_t column, size_t count,
                   float* v) {
    const Shape& s = shapes[step.output];
    const size_t n = count * s.channels;
    chain.rowwise.activate(v, n, step.activation);
    if (sink.images) {
        chain.rowwise.quantize(v, n, sink.images->quant[image],
                                sink.images->pixel(image, static_cast<ptrdiff_t>(row),
                                                   static_cast<ptrdiff_t>(column)));
        return;
    }
    const size_t pixel = row * s.width + column;
    for (size_t i = 0; i < count; ++i)
        for (size_t c = 0; c < s.channels; ++c)
            sink.y[image * s.image() + (sink.channels_last ? (pixel + i) * s.channels + c
                                                           : c * s.plane() + pixel + i)] = v[i * s.channels + c];
}

void Worker::sum(const Step& step, const Sink& sink) {
    const Shape& s = shapes[step.output];
    const ByteImages &a = images[step.input], &b = images[step.other];
    const size_t pixels = kValuesAtOnce / s.channels + 1;
    each_row(s, [&](size_t image, size_t row) {
        Scratch<float> left(product(pixels, s.channels)), right(product(pixels, s.channels));
        for (size_t column = 0; column < s.width; column += pixels) {
            const size_t count = smaller(pixels, s.width - column), n = count * s.channels;
            const ptrdiff_t y = static_cast<ptrdiff_t>(row), x = static_cast<ptrdiff_t>(column);
            chain.rowwise.dequantize(a.pixel(image, y, x), n, a.quant[image], left.data());
            chain.rowwise.dequantize(b.pixel(image, y, x), n, b.quant[image], right.data());
            chain.rowwise.add(left.data(), right.data(), n);
            store(step, sink, image, row, column, count, left.data());
        }
    });
}

// Are the bytes of the input, in the order of the output, those of the output?
bool Worker::keeps_levels(const Step& step, const Sink& sink, size_t image) const {
    const Quant& quant = images[step.input].quant[image];
    return sink.images && step.activation.kind == HC_NONE && sink.images->quant[image].scale == quant.scale &&
           sink.images->quant[image].zero == quant.zero;
}

template <class Body>
void Worker::each_row_of_bytes(const Step& step, const Sink& sink, const Body& body) {
    const Shape& s = shapes[step.output];
    const size_t n = product(s.width, s.channels);
    each_row(s, [&](size_t image, size_t row) {
        if (keeps_levels(step, sink, image))
            return body(image, row, sink.images->pixel(image, static_cast<ptrdiff_t>(row), 0));
        Scratch<uint8_t> line(n);
        Scratch<float> v(n);
        body(image, row, line.data());
        chain.rowwise.dequantize(line.data(), n, images[step.input].quant[image], v.data());
        store(step, sink, image, row, 0, s.width, v.data());
    });
}

void Worker::subsample(const Step& step, const Sink& sink) {
    const Shape& s = shapes[step.output];
    const ByteImages& x = images[step.input];
    each_row_of_bytes(step, sink, [&](size_t image, size_t row, uint8_t* into) {
        memset(into, x.quant[image].zero, s.width * s.channels);
        for (size_t column = 0; column < s.width; ++column)
            memcpy(into + column * s.channels + step.channels_before,
                   x.pixel(image, static_cast<ptrdiff_t>(row * step.window.stride_y),
                           static_cast<ptrdiff_t>(column * step.window.stride_x)),
                   x.shape.channels);
    });
}

void Worker::max_pool(const Step& step, const Sink& sink) {
    const Shape& s = shapes[step.output];
    const ByteImages& x = images[step.input];
    const Window& w = step.window;
    const size_t channels = s.channels;
    each_row_of_bytes(step, sink, [&](size_t image, size_t row, uint8_t* into) {
        // First over the rows of the window, for all columns at once; then over its columns.
        Scratch<uint8_t> line(product(x.shape.width, channels));
        std::vector<const uint8_t*> taps;
        const Window::Taps rows = w.rows_inside(row, x.shape);
        for (size_t i = rows.begin; i < rows.end; ++i)
            taps.push_back(x.pixel(image, static_cast<ptrdiff_t>(row * w.stride_y + i * w.dilation_y - w.top), 0));
        chain.rowwise.max_u8(taps.data(), taps.size(), x.shape.width * channels, line.data());
        for (size_t column = 0, count; column < s.width; column += count) {
            const Window::Taps columns = w.columns_inside(column, x.shape);
            const size_t seen = columns.end - columns.begin;
            count = seen == w.taps_x ? smaller(s.width, w.columns_ending_inside(x.shape)) - column : 1;
            chain.rowwise.max_windows(
                &line[(column * w.stride_x + columns.begin * w.dilation_x - w.left) * channels],
                w.stride_x * channels, count, w.dilation_x * channels, seen, channels, into + column * channels);
        }
    });
}

void Worker::average_pool(const Step& step, const Sink& sink) {
    const Shape& s = shapes[step.output];
    const ByteImages& x = images[step.input];
    const Window& w = step.window;
    each_row(s, [&](size_t image, size_t row) {
        Scratch<float> v(s.channels);
        Scratch<int32_t> total(s.channels);
        std::vector<const uint8_t*> taps;
        const Window::Taps rows = w.rows_inside(row, x.shape);
        for (size_t column = 0; column < s.width; ++column) {
            taps.clear();
            const Window::Taps columns = w.columns_inside(column, x.shape);
            for (size_t i = rows.begin; i < rows.end; ++i)
                for (size_t j = columns.begin; j < columns.end; ++j)
                    taps.push_back(
                        x.pixel(image, static_cast<ptrdiff_t>(row * w.stride_y + i * w.dilation_y - w.top),
                                static_cast<ptrdiff_t>(column * w.stride_x + j * w.dilation_x - w.left)));
            average(taps, step.flag ? w.taps() : taps.size(), x.quant[image], total.data(), s.channels, v.data());
            store(step, sink, image, row, column, 1, v.data());
        }
    });
}

void Worker::average(const std::vector<const uint8_t*>& taps, size_t counted, const Quant& quant, int32_t* total,
             size_t channels, float* v) const {
    chain.rowwise.sum_u8(taps.data(), taps.size(), channels, total);
    chain.rowwise.dequantize_sums(total, channels, quant.zero * static_cast<int32_t>(taps.size()),
                                   quant.scale / static_cast<float>(counted), v);
}

void Worker::global_average(const Step& step, const Sink& sink) {
    const Shape& s = shapes[step.input];
    const ByteImages& x = images[step.input];
    parallel(exec, s.batch, static_cast<double>(s.image()) * kRowNs, [&](size_t begin, size_t end) {
        Scratch<float> v(s.channels);
        Scratch<int32_t> total(s.channels);
        std::vector<const uint8_t*> pixels(s.plane());
        for (size_t image = begin; image < end; ++image) {
            for (size_t i = 0; i < s.plane(); ++i)
                pixels[i] = x.pixel(image, static_cast<ptrdiff_t>(i / s.width), static_cast<ptrdiff_t>(i % s.width));
            average(pixels, s.plane(), x.quant[image], total.data(), s.channels, v.data());
            store(step, sink, image, 0, 0, 1, v.data());
        }
    });
}

} // namespace hc
