// One run of a chain: tensors in places of one block of memory, one step after another.
#include <math.h>
#include <string.h>

#include <algorithm>

#include "ops/chain.h"
#include "ops/parallel.h"

namespace hc {
namespace {

constexpr double kRowNs = 0.3;      // for one value of a pooling or a sum
constexpr double kLargestNs = 0.05; // for one value of an input, in search of one that is not finite
constexpr size_t kValuesAtOnce = 1024;

// Measured on a Zen 4: what a byte of codes that is fetched again costs, and the start of a step on all threads.
constexpr double kCodeCost = 4, kStartBytes = 64 << 10;

// Values of one image of a tensor, on their way out of a step: in 8 bits, or floats in either order of channels.
struct Sink {
    const ByteImages* images; // null for floats
    float* y;
    bool channels_last;
};

class Run {
   public:
    Run(const hc_chain& chain, std::vector<Shape> shapes, const hc_exec* exec)
        : chain_(chain),
          exec_(exec),
          batch_(shapes[0].batch),
          shapes_(std::move(shapes)),
          images_(chain.tensors.size()),
          at_(images_.size()) {
        by_image_ = batch_ > 1 ? steps_by_image() : 0;
        Placement placement;
        for (size_t i = 0; i < images_.size(); ++i) {
            const Tensor& tensor = chain.tensors[i];
            if (!tensor.read) continue;
            images_[i].shape = shapes_[i];
            images_[i].shape.batch = is_local(i) ? 1 : batch_;
            images_[i].margin = tensor.margin;
            at_[i] = placement.place(images_[i].size(), birth(i), tensor.last);
        }
        for (const Step& step : chain.steps) // floats before their range is known
            if (is_dynamic(step.output)) {
                const size_t images = made_in(step.output) < by_image_ ? 1 : batch_;
                const size_t bytes = product(shapes_[step.output].image(), images, sizeof(float));
                floats_at_.push_back(placement.place(bytes, made_in(step.output), made_in(step.output)));
            } else {
                floats_at_.push_back(0);
            }
        quants_.resize(product(images_.size(), batch_));
        finite_.assign(batch_, true);
        arena_ = chain.take_arena(placement.size());
        for (size_t i = 0; i < images_.size(); ++i)
            for (size_t image = 0; image < batch_; ++image) {
                const hc_quant& quant = chain.tensors[i].quant;
                quants_[i * batch_ + image] = quant_of(quant.scale, quant.zero);
            }
    }
    ~Run() { chain_.give_arena(std::move(arena_)); }
    Run(const Run&) = delete;

    void all(const float* const* x, float* const* y) {
        for (size_t image = 0; by_image_ && image < batch_; ++image) {
            take(image, 1);
            for (size_t i = 0; i < chain_.inputs; ++i) enter(i, x[i]);
            for (size_t i = 0; i < by_image_; ++i) step(i, y);
        }
        take(0, batch_);
        for (size_t i = 0; !by_image_ && i < chain_.inputs; ++i) enter(i, x[i]);
        for (size_t i = by_image_; i < chain_.steps.size(); ++i) step(i, y);
        leave(y);
    }

   private:
    // How many of the first steps to take image by image: what an image needs of one step is then still near for the
    // next. Later ones take all images together, and fetch their weights and start once. As images shrink and weights
    // grow, there is a step where it pays to change.
    size_t steps_by_image() const {
        size_t best = 0;
        double cost = 0, least = 0; // of image by image beside all together, in bytes of activations
        for (size_t i = 0; i < chain_.steps.size(); ++i) {
            const Step& step = chain_.steps[i];
            cost += kStartBytes;
            if (step.weight) cost += kCodeCost * static_cast<double>(step.weight->pairs * step.weight->pair_bytes());
            for (const size_t tensor : {step.input, step.other, step.output})
                if (tensor != kNoTensor) cost -= static_cast<double>(shapes_[tensor].image());
            if (cost >= least) continue;
            least = cost;
            best = i + 1;
        }
        return best;
    }

    // The images [first, first + count) of the batch become those that are worked on.
    void take(size_t first, size_t count) {
        first_ = first;
        for (size_t i = 0; i < images_.size(); ++i) {
            shapes_[i].batch = images_[i].shape.batch = count;
            images_[i].values = arena_->memory.data() + at_[i] + (is_local(i) ? 0 : first * images_[i].image_pitch());
            images_[i].quant = quants_.data() + i * batch_ + first;
        }
    }

    void enter(size_t tensor, const float* x) {
        const Shape& s = shapes_[tensor];
        x += first_ * s.image();
        parallel(exec_, s.batch, static_cast<double>(s.image()) * kLargestNs, [&](size_t begin, size_t end) {
            for (size_t image = begin; image < end; ++image)
                if (!is_finite(chain_.rowwise.largest(x + image * s.image(), s.image())))
                    finite_[first_ + image] = false;
        });
        if (!chain_.tensors[tensor].read) return;
        if (is_dynamic(tensor)) find_ranges(tensor, x);
        fill(images_[tensor], x, chain_.rowwise, exec_);
    }

    void step(size_t index, float* const* y) {
        const Step& step = chain_.steps[index];
        const size_t output = step.output;
        const bool dynamic = is_dynamic(output);
        if (chain_.tensors[output].inherits)
            std::copy_n(images_[step.input].quant, shapes_[output].batch, images_[output].quant);
        Sink sink{chain_.tensors[output].read ? &images_[output] : nullptr, nullptr, false};
        if (dynamic) {
            sink = {nullptr, reinterpret_cast<float*>(arena_->memory.data() + floats_at_[index]), true};
        } else if (!sink.images) {
            for (size_t i = 0; i < chain_.outputs.size(); ++i)
                if (chain_.outputs[i] == output) sink.y = y[i] + first_ * shapes_[output].image();
            if (!sink.y) return; // nobody wants it
        } else {
            for (size_t image = 0; image < shapes_[output].batch; ++image) images_[output].fill_margins(image);
        }
        compute(step, sink);
        if (!dynamic) return;
        const Shape& s = shapes_[output];
        find_ranges(output, sink.y);
        for (size_t image = 0; image < s.batch; ++image) images_[output].fill_margins(image);
        each_row(s, [&](size_t image, size_t row) {
            chain_.rowwise.quantize(sink.y + (image * s.height + row) * s.width * s.channels, s.width * s.channels,
                                    images_[output].quant[image],
                                    images_[output].pixel(image, static_cast<ptrdiff_t>(row), 0));
        });
    }

    // Outputs that are held in 8 bits, and those of images that are not finite.
    void leave(float* const* y) {
        for (size_t i = 0; i < chain_.outputs.size(); ++i) {
            const size_t tensor = chain_.outputs[i];
            const Shape& s = shapes_[tensor];
            if (chain_.tensors[tensor].read)
                each_row(s, [&](size_t image, size_t row) {
                    chain_.rowwise.dequantize_channels(images_[tensor].pixel(image, static_cast<ptrdiff_t>(row), 0),
                                                       s.channels, s.channels, s.width, images_[tensor].quant[image],
                                                       y[i] + image * s.image() + row * s.width, s.plane());
                });
            for (size_t image = 0; image < s.batch; ++image)
                for (size_t k = 0; !finite_[image] && k < s.image(); ++k) y[i][image * s.image() + k] = NAN;
        }
    }

    // The step that makes it.
    size_t made_in(size_t tensor) const { return tensor < chain_.inputs ? 0 : tensor - chain_.inputs; }

    // Only steps that work image by image see it: one image at a time has a place.
    bool is_local(size_t tensor) const { return chain_.tensors[tensor].last < by_image_; }

    // The first step of those that may not write over it.
    size_t birth(size_t tensor) const {
        return made_in(tensor) < by_image_ && !is_local(tensor) ? 0 : made_in(tensor);
    }

    bool is_dynamic(size_t tensor) const {
        const Tensor& t = chain_.tensors[tensor];
        return t.read && t.quant.scale == 0 && !t.inherits;
    }

    template <class Body>
    void each_row(const Shape& s, const Body& body) {
        parallel(exec_, s.batch * s.height, static_cast<double>(s.width * s.channels) * kRowNs,
                 [&](size_t begin, size_t end) {
                     for (size_t i = begin; i < end; ++i) body(i / s.height, i % s.height);
                 });
    }

    void find_ranges(size_t tensor, const float* x) {
        const Shape& s = shapes_[tensor];
        parallel(exec_, s.batch, static_cast<double>(s.image()) * kRowNs, [&](size_t begin, size_t end) {
            for (size_t image = begin; image < end; ++image) {
                float low = 0, high = 0;
                chain_.rowwise.range(x + image * s.image(), s.image(), &low, &high);
                images_[tensor].quant[image] = range_quant(low, high);
            }
        });
    }

    void compute(const Step& step, const Sink& sink) {
        switch (step.kind) {
            case HC_STEP_CONV: {
                ConvTarget to;
                to.y = sink.y;
                to.channels_last = sink.channels_last;
                to.images = sink.images;
                if (step.other != kNoTensor) to.byte_residual = &images_[step.other];
                return convolve(*step.weight, step.window, images_[step.input], step.activation, to, exec_);
            }
            case HC_STEP_MAX_POOL: return max_pool(step, sink);
            case HC_STEP_AVERAGE_POOL: return average_pool(step, sink);
            case HC_STEP_GLOBAL_AVERAGE: return global_average(step, sink);
            case HC_STEP_SUBSAMPLE: return subsample(step, sink);
            default: return sum(step, sink);
        }
    }

    // Real values of `count` neighbouring pixels, activated, to the sink.
    void store(const Step& step, const Sink& sink, size_t image, size_t row, size_t column, size_t count, float* v) {
        const Shape& s = shapes_[step.output];
        const size_t n = count * s.channels;
        chain_.rowwise.activate(v, n, step.activation);
        if (sink.images) {
            chain_.rowwise.quantize(v, n, sink.images->quant[image],
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

    void sum(const Step& step, const Sink& sink) {
        const Shape& s = shapes_[step.output];
        const ByteImages &a = images_[step.input], &b = images_[step.other];
        const size_t pixels = kValuesAtOnce / s.channels + 1;
        each_row(s, [&](size_t image, size_t row) {
            Scratch<float> left(product(pixels, s.channels)), right(product(pixels, s.channels));
            for (size_t column = 0; column < s.width; column += pixels) {
                const size_t count = smaller(pixels, s.width - column), n = count * s.channels;
                const ptrdiff_t y = static_cast<ptrdiff_t>(row), x = static_cast<ptrdiff_t>(column);
                chain_.rowwise.dequantize(a.pixel(image, y, x), n, a.quant[image], left.data());
                chain_.rowwise.dequantize(b.pixel(image, y, x), n, b.quant[image], right.data());
                chain_.rowwise.add(left.data(), right.data(), n);
                store(step, sink, image, row, column, count, left.data());
            }
        });
    }

    // Are the bytes of the input, in the order of the output, those of the output?
    bool keeps_levels(const Step& step, const Sink& sink, size_t image) const {
        const Quant& quant = images_[step.input].quant[image];
        return sink.images && step.activation.kind == HC_NONE && sink.images->quant[image].scale == quant.scale &&
               sink.images->quant[image].zero == quant.zero;
    }

    void subsample(const Step& step, const Sink& sink) {
        const Shape& s = shapes_[step.output];
        const ByteImages& x = images_[step.input];
        each_row(s, [&](size_t image, size_t row) {
            const Quant& quant = x.quant[image];
            const bool as_it_is = keeps_levels(step, sink, image);
            const size_t n = s.width * s.channels;
            Scratch<uint8_t> line(as_it_is ? 0 : n);
            uint8_t* into = as_it_is ? sink.images->pixel(image, static_cast<ptrdiff_t>(row), 0) : line.data();
            memset(into, quant.zero, n);
            for (size_t column = 0; column < s.width; ++column)
                memcpy(into + column * s.channels + step.channels_before,
                       x.pixel(image, static_cast<ptrdiff_t>(row * step.window.stride_y),
                               static_cast<ptrdiff_t>(column * step.window.stride_x)),
                       x.shape.channels);
            if (as_it_is) return;
            Scratch<float> v(product(s.width, s.channels));
            chain_.rowwise.dequantize(into, n, quant, v.data());
            store(step, sink, image, row, 0, s.width, v.data());
        });
    }

    void max_pool(const Step& step, const Sink& sink) {
        const Shape& s = shapes_[step.output];
        const ByteImages& x = images_[step.input];
        const Window& w = step.window;
        each_row(s, [&](size_t image, size_t row) {
            const size_t channels = s.channels;
            const Quant& quant = x.quant[image];
            const ptrdiff_t at = static_cast<ptrdiff_t>(row);
            const bool as_it_is = keeps_levels(step, sink, image);
            // First over the rows of the window, for all columns at once; then over its columns.
            Scratch<uint8_t> line(product(x.shape.width, channels)), most(product(s.width, channels));
            std::vector<const uint8_t*> taps;
            const Window::Taps rows = w.rows_inside(row, x.shape);
            for (size_t i = rows.begin; i < rows.end; ++i)
                taps.push_back(x.pixel(image, static_cast<ptrdiff_t>(row * w.stride_y + i * w.dilation_y - w.top), 0));
            chain_.rowwise.max_u8(taps.data(), taps.size(), x.shape.width * channels, line.data());
            uint8_t* into = as_it_is ? sink.images->pixel(image, at, 0) : most.data();
            for (size_t column = 0, count; column < s.width; column += count) {
                const Window::Taps columns = w.columns_inside(column, x.shape);
                const size_t seen = columns.end - columns.begin;
                count = seen == w.taps_x ? smaller(s.width, w.columns_ending_inside(x.shape)) - column : 1;
                chain_.rowwise.max_windows(
                    &line[(column * w.stride_x + columns.begin * w.dilation_x - w.left) * channels],
                    w.stride_x * channels, count, w.dilation_x * channels, seen, channels, into + column * channels);
            }
            if (as_it_is) return;
            Scratch<float> v(product(s.width, channels));
            chain_.rowwise.dequantize(into, s.width * channels, quant, v.data());
            store(step, sink, image, row, 0, s.width, v.data());
        });
    }

    void average_pool(const Step& step, const Sink& sink) {
        const Shape& s = shapes_[step.output];
        const ByteImages& x = images_[step.input];
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

    void average(const std::vector<const uint8_t*>& taps, size_t counted, const Quant& quant, int32_t* total,
                 size_t channels, float* v) const {
        chain_.rowwise.sum_u8(taps.data(), taps.size(), channels, total);
        chain_.rowwise.dequantize_sums(total, channels, quant.zero * static_cast<int32_t>(taps.size()),
                                       quant.scale / static_cast<float>(counted), v);
    }

    void global_average(const Step& step, const Sink& sink) {
        const Shape& s = shapes_[step.input];
        const ByteImages& x = images_[step.input];
        parallel(exec_, s.batch, static_cast<double>(s.image()) * kRowNs, [&](size_t begin, size_t end) {
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

    const hc_chain& chain_;
    const hc_exec* exec_;
    const size_t batch_;
    size_t by_image_ = 0;            // the first steps, that work on one image at a time
    size_t first_ = 0;               // image of the batch that is worked on
    std::vector<Shape> shapes_;      // of what is worked on
    std::vector<ByteImages> images_; // of the tensors that are held in 8 bits
    std::vector<size_t> at_;         // where these begin in the arena
    std::vector<Quant> quants_;      // (tensors, batch)
    std::vector<size_t> floats_at_;  // by step
    std::vector<char> finite_;       // by image
    std::unique_ptr<Arena> arena_;
};

} // namespace
} // namespace hc

void hc_chain::run(const hc_shape* given, const float* const* x, float* const* y, const hc_exec* exec) const {
    std::vector<hc::Shape> all = shapes(given);
    bool wanted = false;
    for (size_t i = 0; i < inputs; ++i)
        if (all[i].count() && !x[i]) hc::fail(HC_INVALID_ARGUMENT, "x[%zu] is null", i);
    for (size_t i = 0; i < outputs.size(); ++i) {
        if (all[outputs[i]].count() && !y[i]) hc::fail(HC_INVALID_ARGUMENT, "y[%zu] is null", i);
        wanted = wanted || all[outputs[i]].count();
    }
    if (!wanted) return;
    hc::Run run(*this, std::move(all), exec);
    run.all(x, y);
}

std::unique_ptr<hc::Arena> hc_chain::take_arena(size_t bytes) const {
    {
        const std::lock_guard<std::mutex> lock(mutex);
        while (!arenas.empty()) {
            std::unique_ptr<hc::Arena> arena = std::move(arenas.back());
            arenas.pop_back();
            if (arena->size >= bytes) return arena;
        }
    }
    return std::make_unique<hc::Arena>(bytes);
}

void hc_chain::give_arena(std::unique_ptr<hc::Arena> arena) const noexcept {
    try {
        const std::lock_guard<std::mutex> lock(mutex);
        arenas.push_back(std::move(arena));
    } catch (...) { // no memory for the list: this block is freed
    }
}
