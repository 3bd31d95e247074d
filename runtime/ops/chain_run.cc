// One run of a chain: tensors in places of one block of memory, one step after another.
#include <math.h>

#include <algorithm>

#include "ops/census.h"
#include "ops/chain_steps.h"

namespace hc {
namespace {

constexpr double kLargestNs = 0.05; // for one value of an input, in search of one that is not finite

// Measured on a Zen 4: what a byte of codes that is fetched again costs, and the start of a step on all threads.
constexpr double kCodeCost = 4, kStartBytes = 64 << 10;
constexpr double kLeastBusy = 0.85; // share of its time that a thread with images of its own has work

// What all images of a run share: where tensors lie, and what is known of each.
struct Frame {
    Frame(const hc_chain& chain, const std::vector<Shape>& shapes);
    ~Frame() { chain.give_arena(std::move(arena)); }
    Frame(const Frame&) = delete;

    // The step that makes it.
    size_t made_in(size_t tensor) const { return tensor < chain.inputs ? 0 : tensor - chain.inputs; }

    // Only steps that work image by image see it: it has a place in every lane, for one image at a time.
    bool is_local(size_t tensor) const { return chain.tensors[tensor].last < by_image; }

    bool is_dynamic(size_t tensor) const {
        const Tensor& t = chain.tensors[tensor];
        return t.read && t.quant.scale == 0 && !t.inherits;
    }

    uint8_t* lane_memory(size_t lane) const { return arena->memory.data() + shared_bytes + lane * lane_bytes; }

    const hc_chain& chain;
    const std::vector<Shape>& shapes;
    const size_t batch;
    size_t lanes;                  // threads that take images of their own through the first steps
    size_t by_image;               // how many steps that are
    std::vector<size_t> at;        // where tensors begin in their lane, or in what lanes share
    std::vector<size_t> floats_at; // by step: its floats before their range is known
    size_t shared_bytes, lane_bytes;
    std::unique_ptr<Arena> arena;
    std::vector<Quant> quants; // (tensors, batch)
    std::vector<char> finite;  // by image

   private:
    size_t count_lanes() const;
    size_t steps_by_image() const;
};

Frame::Frame(const hc_chain& chain, const std::vector<Shape>& shapes)
    : chain(chain), shapes(shapes), batch(shapes[0].batch), lanes(count_lanes()), by_image(steps_by_image()) {
    Placement shared, lane;
    for (size_t i = 0; i < shapes.size(); ++i) {
        const Tensor& tensor = chain.tensors[i];
        ByteImages images;
        images.shape = shapes[i];
        images.shape.batch = is_local(i) ? 1 : batch;
        images.margin = tensor.margin;
        const size_t birth = made_in(i) < by_image && !is_local(i) ? 0 : made_in(i);
        at.push_back(tensor.read ? (is_local(i) ? lane : shared).place(images.size(), birth, tensor.last) : 0);
    }
    for (size_t i = 0; i < chain.steps.size(); ++i) {
        const size_t output = chain.steps[i].output;
        const size_t bytes = product(shapes[output].image(), i < by_image ? 1 : batch, sizeof(float));
        floats_at.push_back(is_dynamic(output) ? (i < by_image ? lane : shared).place(bytes, i, i) : 0);
    }
    shared_bytes = shared.size();
    lane_bytes = lane.size();
    arena = chain.take_arena(shared_bytes + product(lanes, lane_bytes));
    for (size_t i = 0; i < shapes.size(); ++i)
        quants.insert(quants.end(), batch, quant_of(chain.tensors[i].quant.scale, chain.tensors[i].quant.zero));
    finite.assign(batch, true);
}

// As many as threads, where images come out even: then no thread waits for another between two steps.
size_t Frame::count_lanes() const {
    const size_t threads = chain.threads, rounds = ceil_div(batch, threads);
    return static_cast<double>(batch) >= kLeastBusy * static_cast<double>(rounds * threads) ? threads : 1;
}

// How many of the first steps to take image by image: what an image needs of one step is then still near for the next.
// Later ones take all images together, and fetch their weights once. As images shrink and weights grow, there is a step
// where it pays to change.
size_t Frame::steps_by_image() const {
    size_t best = 0;
    double cost = 0, least = 0; // of image by image beside all together, in bytes of activations
    for (size_t i = 0; batch > 1 && i < chain.steps.size(); ++i) {
        const Step& step = chain.steps[i];
        if (lanes == 1) cost += kStartBytes;
        if (step.weight) cost += kCodeCost * static_cast<double>(step.weight->pairs * step.weight->pair_bytes());
        for (const size_t tensor : {step.input, step.other, step.output})
            if (tensor != kNoTensor) cost -= static_cast<double>(shapes[tensor].image());
        if (cost >= least) continue;
        least = cost;
        best = i + 1;
    }
    return best;
}

// Takes images of a frame through steps.
class Lane : Worker {
   public:
    Lane(Frame& frame, const hc_exec* exec, size_t lane)
        : Worker(frame.chain, exec, frame.shapes), frame_(frame), memory_(frame.lane_memory(lane)) {
        for (size_t i = 0; i < images.size(); ++i) {
            images[i].shape = shapes[i];
            images[i].margin = chain.tensors[i].margin;
        }
    }

    // The images [first, first + count) of the batch become those that are worked on.
    void take(size_t first, size_t count) {
        first_ = first;
        uint8_t* shared = frame_.arena->memory.data();
        for (size_t i = 0; i < images.size(); ++i) {
            shapes[i].batch = images[i].shape.batch = count;
            images[i].values = frame_.at[i] + (frame_.is_local(i) ? memory_ : shared + first * images[i].image_pitch());
            images[i].quant = frame_.quants.data() + i * frame_.batch + first;
        }
    }

    void enter(size_t tensor, const float* x) {
        const Shape& s = shapes[tensor];
        x += first_ * s.image();
        parallel(exec, s.batch, static_cast<double>(s.image()) * kLargestNs, [&](size_t begin, size_t end) {
            for (size_t image = begin; image < end; ++image)
                if (!is_finite(chain.rowwise.largest(x + image * s.image(), s.image())))
                    frame_.finite[first_ + image] = false;
        });
        if (!chain.tensors[tensor].read) return;
        if (frame_.is_dynamic(tensor)) find_ranges(tensor, x);
        fill(images[tensor], x, chain.rowwise, exec);
    }

    void step(size_t index, float* const* y) {
        const Step& step = chain.steps[index];
        const size_t output = step.output;
        const bool dynamic = frame_.is_dynamic(output);
        if (chain.tensors[output].inherits)
            std::copy_n(images[step.input].quant, shapes[output].batch, images[output].quant);
        Sink sink{chain.tensors[output].read ? &images[output] : nullptr, nullptr, false};
        if (dynamic) {
            uint8_t* memory = index < frame_.by_image ? memory_ : frame_.arena->memory.data();
            sink = {nullptr, reinterpret_cast<float*>(memory + frame_.floats_at[index]), true};
        } else if (!sink.images) {
            for (size_t i = 0; i < chain.outputs.size(); ++i)
                if (chain.outputs[i] == output) sink.y = y[i] + first_ * shapes[output].image();
            if (!sink.y) return; // nobody wants it
        } else {
            for (size_t image = 0; image < shapes[output].batch; ++image) images[output].fill_margins(image);
        }
        compute(step, sink);
        if (!dynamic) return;
        const Shape& s = shapes[output];
        find_ranges(output, sink.y);
        for (size_t image = 0; image < s.batch; ++image) images[output].fill_margins(image);
        each_row(s, [&](size_t image, size_t row) {
            chain.rowwise.quantize(sink.y + (image * s.height + row) * s.width * s.channels, s.width * s.channels,
                                   images[output].quant[image],
                                   images[output].pixel(image, static_cast<ptrdiff_t>(row), 0));
        });
    }

    // Outputs that are held in 8 bits, and those of images that are not finite.
    void leave(float* const* y) {
        for (size_t i = 0; i < chain.outputs.size(); ++i) {
            const size_t tensor = chain.outputs[i];
            const Shape& s = shapes[tensor];
            if (chain.tensors[tensor].read)
                each_row(s, [&](size_t image, size_t row) {
                    chain.rowwise.dequantize_channels(images[tensor].pixel(image, static_cast<ptrdiff_t>(row), 0),
                                                      s.channels, s.channels, s.width, images[tensor].quant[image],
                                                      y[i] + image * s.image() + row * s.width, s.plane());
                });
            for (size_t image = 0; image < s.batch; ++image)
                for (size_t k = 0; !frame_.finite[image] && k < s.image(); ++k) y[i][image * s.image() + k] = NAN;
        }
    }

   private:
    void find_ranges(size_t tensor, const float* x) {
        const Shape& s = shapes[tensor];
        parallel(exec, s.batch, static_cast<double>(s.image()) * kRowNs, [&](size_t begin, size_t end) {
            for (size_t image = begin; image < end; ++image) {
                float low = 0, high = 0;
                chain.rowwise.range(x + image * s.image(), s.image(), &low, &high);
                images[tensor].quant[image] = range_quant(low, high);
            }
        });
    }

    Frame& frame_;
    uint8_t* memory_;  // of the lane
    size_t first_ = 0; // image of the batch that is worked on
};

// The first steps for one of `lanes` equal parts of the batch.
void take_images(Frame& frame, const hc_exec* exec, size_t lane, size_t lanes, const float* const* x,
                 float* const* y) {
    Lane images(frame, exec, lane);
    for (size_t image = frame.batch * lane / lanes; image < frame.batch * (lane + 1) / lanes; ++image) {
        images.take(image, 1);
        for (size_t i = 0; i < frame.chain.inputs; ++i) images.enter(i, x[i]);
        for (size_t i = 0; i < frame.by_image; ++i) images.step(i, y);
    }
}

void run_steps(Frame& frame, const hc_exec* exec, const float* const* x, float* const* y) {
    if (frame.by_image && frame.lanes > 1)
        parallel(exec, frame.lanes, kTaskNs, [&](size_t begin, size_t end) {
            for (size_t i = begin; i < end; ++i) take_images(frame, nullptr, i, frame.lanes, x, y);
        });
    else if (frame.by_image)
        take_images(frame, exec, 0, 1, x, y);
    Lane all(frame, exec, 0);
    all.take(0, frame.batch);
    for (size_t i = 0; !frame.by_image && i < frame.chain.inputs; ++i) all.enter(i, x[i]);
    for (size_t i = frame.by_image; i < frame.chain.steps.size(); ++i) all.step(i, y);
    all.leave(y);
}

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
    hc::Frame frame(*this, all);
    hc::run_steps(frame, hc::Census(exec, threads).exec(), x, y);
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
