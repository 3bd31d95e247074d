#include "ops/chain.h"

#include <math.h>

#include <memory>

#include "isa.h"
#include "table.h"

namespace hc {
namespace {

constexpr size_t kMostSummed = INT32_MAX / 255; // bytes whose sum is an int32

size_t tensor_number(const char* what, int32_t number, size_t below, size_t step) {
    if (number < 0 || static_cast<size_t>(number) >= below)
        fail(HC_INVALID_ARGUMENT, "step %zu: %s is tensor %d; wanted one of the %zu before it", step, what, number,
             below);
    return static_cast<size_t>(number);
}

size_t channels_of_zeros(int64_t count, size_t step) {
    if (count < 0 || count > INT32_MAX)
        fail(HC_INVALID_ARGUMENT, "step %zu: %lld channels of zeros; wanted 0 or more", step,
             static_cast<long long>(count));
    return static_cast<size_t>(count);
}

Step checked(const hc_step& step, size_t index, size_t inputs) {
    if (step.size != sizeof(hc_step)) fail(HC_INVALID_ARGUMENT, "step %zu is of another version", index);
    if (step.kind < 0 || step.kind >= HC_STEP_END)
        fail(HC_INVALID_ARGUMENT, "step %zu has kind %d: unknown", index, step.kind);
    const size_t output = inputs + index;
    if (step.output < 0 || static_cast<size_t>(step.output) != output)
        fail(HC_INVALID_ARGUMENT, "step %zu makes tensor %d; wanted %zu", index, step.output, output);
    Step result{};
    result.kind = step.kind;
    result.input = tensor_number("its input", step.input, output, index);
    result.other = kNoTensor;
    if (step.kind == HC_STEP_ADD || (step.kind == HC_STEP_CONV && step.other != -1))
        result.other = tensor_number("its other input", step.other, output, index);
    result.output = output;
    result.flag = step.flag != 0;
    result.activation = Activation(step.activation, step.low, step.high);
    result.weight = step.kind == HC_STEP_CONV ? step.weight : nullptr;
    if (step.kind == HC_STEP_CONV && (!step.weight || !step.weight->int8))
        fail(HC_INVALID_ARGUMENT, "step %zu: a convolution of a chain has a weight for HC_INT8", index);
    if (step.kind == HC_STEP_CONV || step.kind == HC_STEP_MAX_POOL || step.kind == HC_STEP_AVERAGE_POOL ||
        step.kind == HC_STEP_SUBSAMPLE)
        result.window = Window(step.window);
    const Window& w = result.window;
    const bool pools = step.kind == HC_STEP_MAX_POOL || step.kind == HC_STEP_AVERAGE_POOL;
    if (pools && (w.top >= w.reach_y() || w.bottom >= w.reach_y() || w.left >= w.reach_x() || w.right >= w.reach_x()))
        fail(HC_INVALID_ARGUMENT, "step %zu: a window of the pooling may lie in the padding alone", index);
    if (step.kind == HC_STEP_AVERAGE_POOL && w.taps() > kMostSummed)
        fail(HC_INVALID_ARGUMENT, "step %zu: a mean of %zu values; at most %zu can be summed", index, w.taps(),
             kMostSummed);
    if (step.kind == HC_STEP_SUBSAMPLE) {
        if (w.taps() != 1 || w.top || w.left || w.bottom || w.right)
            fail(HC_INVALID_ARGUMENT, "step %zu: a subsampling has no window but its strides", index);
        result.channels_before = channels_of_zeros(step.channels_before, index);
        result.channels_after = channels_of_zeros(step.channels_after, index);
    }
    return result;
}

void check_quant(const hc_quant& quant, size_t tensor) {
    if (!isfinite(quant.scale) || quant.scale < 0 || quant.zero < 0 || quant.zero > 255)
        fail(HC_INVALID_ARGUMENT, "tensor %zu: scale %g, zero %d; wanted a scale of 0 or more, a zero of 0 to 255",
             tensor, static_cast<double>(quant.scale), quant.zero);
}

} // namespace
} // namespace hc

using namespace hc;

hc_chain::hc_chain(const hc_chain_desc& desc) : inputs(desc.input_count) {
    const size_t count = desc.step_count;
    if (!inputs || inputs > INT32_MAX || !count || count > INT32_MAX)
        fail(HC_INVALID_ARGUMENT, "a chain of %zu inputs and %zu steps", inputs, count);
    if (desc.tensor_count != inputs + count)
        fail(HC_INVALID_ARGUMENT, "%zu tensors; %zu inputs and %zu steps have %zu", desc.tensor_count, inputs, count,
             inputs + count);
    if (!desc.tensors || !desc.steps || !desc.outputs || !desc.output_count)
        fail(HC_INVALID_ARGUMENT, "tensors, steps or outputs are missing");
    for (size_t i = 0; i < desc.tensor_count; ++i) {
        check_quant(desc.tensors[i], i);
        tensors.push_back({desc.tensors[i], false, false, false, {}, 0});
    }
    for (size_t i = 0; i < count; ++i) {
        const Step step = checked(desc.steps[i], i, inputs);
        for (const size_t from : {step.input, step.other}) {
            if (from == kNoTensor) continue;
            tensors[from].read = true;
            tensors[from].last = i;
        }
        tensors[step.output].inherits = step.kind == HC_STEP_SUBSAMPLE && step.activation.kind == HC_NONE &&
                                        tensors[step.output].quant.scale == 0;
        if (step.weight) tensors[step.input].margin.widen(Margin::of(step.window));
        steps.push_back(step);
    }
    for (size_t i = 0; i < desc.output_count; ++i) {
        const int32_t tensor = desc.outputs[i];
        if (tensor < 0 || static_cast<size_t>(tensor) < inputs || static_cast<size_t>(tensor) >= tensors.size())
            fail(HC_INVALID_ARGUMENT, "output %zu is tensor %d; wanted that of a step", i, tensor);
        if (tensors[static_cast<size_t>(tensor)].leaves)
            fail(HC_INVALID_ARGUMENT, "output %zu is tensor %d, as one before it", i, tensor);
        outputs.push_back(static_cast<size_t>(tensor));
        tensors[outputs.back()].leaves = true;
        tensors[outputs.back()].last = count;
    }
    rowwise = select(1, cap_of_environment()).rowwise;
}

std::vector<Shape> hc_chain::shapes(const hc_shape* given) const {
    std::vector<Shape> found;
    for (size_t i = 0; i < inputs; ++i) {
        found.emplace_back(given[i]);
        if (found[i].batch != found[0].batch)
            fail(HC_INVALID_ARGUMENT, "input %zu has batch %zu; input 0 has %zu", i, found[i].batch, found[0].batch);
    }
    for (const Step& step : steps) {
        const Shape& x = found[step.input];
        Shape y = x;
        if (step.kind == HC_STEP_CONV) y = conv_output(*step.weight, step.window, x);
        if (step.kind == HC_STEP_MAX_POOL || step.kind == HC_STEP_AVERAGE_POOL) {
            y = step.window.output(x, x.channels);
            if (!step.window.every_place_sees(x))
                fail(HC_INVALID_ARGUMENT, "step %zu: a window of the pooling lies in the padding alone",
                     step.output - inputs);
        }
        if (step.kind == HC_STEP_SUBSAMPLE)
            y = step.window.output(x, step.channels_before + x.channels + step.channels_after);
        if (step.kind == HC_STEP_GLOBAL_AVERAGE) {
            y = Shape(x.batch, x.channels, 1, 1);
            if (x.plane() > kMostSummed)
                fail(HC_INVALID_ARGUMENT, "step %zu: a mean of %zu values; at most %zu can be summed",
                     step.output - inputs, x.plane(), kMostSummed);
        }
        if (step.other != kNoTensor && !(found[step.other] == y))
            fail(HC_INVALID_ARGUMENT, "step %zu adds tensors of different shapes", step.output - inputs);
        found.push_back(y);
    }
    return found;
}

extern "C" hc_code hc_chain_open(const hc_chain_desc* desc, hc_chain** out, hc_error* error) {
    return guarded(error, [&] {
        if (!out) fail(HC_INVALID_ARGUMENT, "out is null");
        *out = nullptr;
        if (!desc || desc->size != sizeof(hc_chain_desc))
            fail(HC_INVALID_ARGUMENT, "desc is null or of another version");
        *out = std::make_unique<hc_chain>(*desc).release();
    });
}

extern "C" void hc_chain_close(hc_chain* chain) { delete chain; }

extern "C" hc_code hc_chain_shapes(const hc_chain* chain, const hc_shape* inputs, hc_shape* outputs, hc_error* error) {
    return guarded(error, [&] {
        if (!chain || !inputs || !outputs) fail(HC_INVALID_ARGUMENT, "chain, inputs or outputs is null");
        const std::vector<Shape> shapes = chain->shapes(inputs);
        for (size_t i = 0; i < chain->outputs.size(); ++i) outputs[i] = shapes[chain->outputs[i]].to_c();
    });
}

extern "C" hc_code hc_chain_run(const hc_chain* chain, const hc_shape* inputs, const float* const* x, float* const* y,
                                const hc_exec* exec, hc_error* error) {
    return guarded(error, [&] {
        if (!chain || !inputs || !x || !y) fail(HC_INVALID_ARGUMENT, "chain, inputs, x or y is null");
        chain->run(inputs, x, y, exec);
    });
}
