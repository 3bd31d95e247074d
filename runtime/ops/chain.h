// A chain of convolutions: its steps, checked, and what they need to know of each other.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>

#include "ops/arena.h"
#include "ops/convolve.h"
#include "ops/window.h"

namespace hc {

constexpr size_t kNoTensor = SIZE_MAX;

struct Step {
    hc_step_kind kind;
    size_t input, other, output; // tensors; `other` may be kNoTensor
    bool flag;
    Activation activation;
    const hc_weight* weight;
    Window window;
    size_t channels_before, channels_after;
};

struct Tensor {
    hc_quant quant;
    bool read;      // by a step: held in 8 bits
    bool leaves;    // is an output
    bool inherits;  // has the scale and zero of the input of its step
    Margin margin;  // for the widest window that reads it
    size_t last;    // step that reads it; the number of steps where it leaves the chain in 8 bits
};

} // namespace hc

struct hc_chain {
    explicit hc_chain(const hc_chain_desc& desc);

    size_t inputs;
    std::vector<hc::Tensor> tensors;
    std::vector<hc::Step> steps;
    std::vector<size_t> outputs; // tensors
    hc::Rowwise rowwise;
    mutable std::atomic<size_t> threads{1}; // most that were seen at work at once

    // The shape of every tensor; fails where they do not fit.
    std::vector<hc::Shape> shapes(const hc_shape* inputs) const;

    void run(const hc_shape* inputs, const float* const* x, float* const* y, const hc_exec* exec) const;

    // Memory of finished runs, for the next ones: fresh pages would cost more than small steps do.
    std::unique_ptr<hc::Arena> take_arena(size_t bytes) const;
    void give_arena(std::unique_ptr<hc::Arena> arena) const noexcept;

   private:
    mutable std::mutex mutex;
    mutable std::vector<std::unique_ptr<hc::Arena>> arenas;
};
