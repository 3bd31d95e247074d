// What the steps of a chain do to some images of a batch.
#pragma once

#include "ops/chain.h"
#include "ops/parallel.h"

namespace hc {

// Values of one image of a tensor, on their way out of a step: in 8 bits, or floats in either order of channels.
struct Sink {
    const ByteImages* images; // null for floats
    float* y;
    bool channels_last;
};

// Images that are worked on together, by all threads of `exec` or by the calling one.
struct Worker {
    Worker(const hc_chain& chain, const hc_exec* exec, std::vector<Shape> shapes)
        : chain(chain), exec(exec), shapes(std::move(shapes)), images(chain.tensors.size()) {}
    Worker(const Worker&) = delete;

    // One step, up to values that the sink takes.
    void compute(const Step& step, const Sink& sink);

    template <class Body>
    void each_row(const Shape& s, const Body& body) const {
        parallel(exec, s.batch * s.height, static_cast<double>(s.width * s.channels) * kRowNs,
                 [&](size_t begin, size_t end) {
                     for (size_t i = begin; i < end; ++i) body(i / s.height, i % s.height);
                 });
    }

    static constexpr double kRowNs = 0.3; // for one value of a pooling or a sum

    const hc_chain& chain;
    const hc_exec* exec;
    std::vector<Shape> shapes;      // of every tensor
    std::vector<ByteImages> images; // of those that are held in 8 bits

   private:
    void store(const Step& step, const Sink& sink, size_t image, size_t row, size_t column, size_t count, float* v);
    void sum(const Step& step, const Sink& sink);
    bool keeps_levels(const Step& step, const Sink& sink, size_t image) const;

    // body(image, row, into): the bytes of an output row, with the scale and zero point of the input.
    template <class Body>
    void each_row_of_bytes(const Step& step, const Sink& sink, const Body& body);
    void subsample(const Step& step, const Sink& sink);
    void max_pool(const Step& step, const Sink& sink);
    void average_pool(const Step& step, const Sink& sink);
    void average(const std::vector<const uint8_t*>& taps, size_t counted, const Quant& quant, int32_t* total,
                 size_t channels, float* v) const;
    void global_average(const Step& step, const Sink& sink);
};

} // namespace hc
