#include "nodes/chain.h"

#include <string.h>

namespace hc::nodes {
namespace {

// One step, as attribute `steps` has it.
struct Fields {
    int64_t kind, input, other, output, weight;
    int64_t kernel[2], strides[2], dilations[2], pads[4];
    int64_t groups, activation, flag, bits, group_rows, in_features, channels_before, channels_after;
};
constexpr size_t kChainFields = sizeof(Fields) / sizeof(int64_t);

int32_t small(const char* what, int64_t value) {
    if (value < INT32_MIN || value > INT32_MAX)
        fail(HC_INVALID_ARGUMENT, "%s is %lld", what, static_cast<long long>(value));
    return static_cast<int32_t>(value);
}

hc_step step_of(const Fields& f, float low, float high) {
    hc_step step{};
    step.size = sizeof step;
    step.kind = small("kind", f.kind);
    step.input = small("input", f.input);
    step.other = small("other", f.other);
    step.output = small("output", f.output);
    step.flag = f.flag != 0;
    step.activation = small("activation", f.activation);
    step.low = low;
    step.high = high;
    for (size_t i = 0; i < 2; ++i) {
        step.window.kernel[i] = f.kernel[i];
        step.window.strides[i] = f.strides[i];
        step.window.dilations[i] = f.dilations[i];
    }
    for (size_t i = 0; i < 4; ++i) step.window.pads[i] = f.pads[i];
    step.channels_before = f.channels_before;
    step.channels_after = f.channels_after;
    return step;
}

// A signal (B, C, L) is an image of height 1.
hc_shape shape_of(const std::vector<int64_t>& dims) {
    if (dims.size() != 3 && dims.size() != 4)
        fail(HC_INVALID_ARGUMENT, "X has shape %s; wanted (B, C, H, W) or (B, C, L)", text_of(dims).c_str());
    return {dims[0], dims[1], dims.size() == 4 ? dims[2] : 1, dims.back()};
}

} // namespace

ChainKernel::ChainKernel(const Node& node) {
    const std::vector<int64_t> numbers = node.attributes("steps");
    const std::vector<float> bounds = node.float_attributes("bounds"), quants = node.float_attributes("tensors");
    const size_t count = numbers.size() / kChainFields;
    if (numbers.size() % kChainFields || bounds.size() != 2 * count || quants.size() % 2)
        fail(HC_INVALID_ARGUMENT, "steps has %zu integers, bounds %zu and tensors %zu floats", numbers.size(),
             bounds.size(), quants.size());
    const int64_t activations = node.attribute("activations");
    if (activations < 1 || static_cast<size_t>(activations) > node.input_count())
        fail(HC_INVALID_ARGUMENT, "activations is %lld of %zu inputs", static_cast<long long>(activations),
             node.input_count());
    inputs_ = static_cast<size_t>(activations);

    std::vector<hc_step> steps;
    for (size_t i = 0; i < count; ++i) {
        Fields f;
        memcpy(&f, &numbers[i * kChainFields], sizeof f);
        steps.push_back(step_of(f, bounds[2 * i], bounds[2 * i + 1]));
        if (f.kind != HC_STEP_CONV) continue;
        if (f.weight < 0 || static_cast<size_t>(f.weight) >= (node.input_count() - inputs_) / 4)
            fail(HC_INVALID_ARGUMENT, "step %zu has weight %lld; the inputs hold %zu", i,
                 static_cast<long long>(f.weight), (node.input_count() - inputs_) / 4);
        const WeightForm form = {f.bits, f.in_features, f.group_rows, f.groups, HC_INT8};
        weights_.push_back(open_weight(node, inputs_ + 4 * static_cast<size_t>(f.weight), form, true).weight);
        steps.back().weight = weights_.back().get();
    }
    std::vector<hc_quant> tensors;
    for (size_t i = 0; i < quants.size(); i += 2) {
        if (!(quants[i + 1] >= 0 && quants[i + 1] <= 255))
            fail(HC_INVALID_ARGUMENT, "tensor %zu has zero %g", i / 2, static_cast<double>(quants[i + 1]));
        tensors.push_back({quants[i], static_cast<int32_t>(quants[i + 1])});
    }
    std::vector<int32_t> outputs;
    for (const int64_t tensor : node.attributes("outputs")) outputs.push_back(small("an output", tensor));
    outputs_ = outputs.size();

    hc_chain_desc desc{};
    desc.size = sizeof desc;
    desc.input_count = static_cast<uint32_t>(inputs_);
    desc.tensors = tensors.data();
    desc.tensor_count = tensors.size();
    desc.steps = steps.data();
    desc.step_count = steps.size();
    desc.outputs = outputs.data();
    desc.output_count = outputs.size();
    hc_chain* chain = nullptr;
    hc_error error{};
    check(hc_chain_open(&desc, &chain, &error), error);
    chain_.reset(chain);
}

void ChainKernel::run(Call& call) const {
    std::vector<hc_shape> shapes(inputs_), out(outputs_);
    std::vector<const float*> x(inputs_);
    std::vector<float*> y(outputs_);
    size_t rank = 0;
    for (size_t i = 0; i < inputs_; ++i) {
        const Tensor tensor = call.input(i);
        shapes[i] = shape_of(tensor.dims);
        x[i] = tensor.floats();
        if (rank && rank != tensor.dims.size()) fail(HC_INVALID_ARGUMENT, "inputs of %zu and %zu dims", rank, tensor.dims.size());
        rank = tensor.dims.size();
    }
    hc_error error{};
    check(hc_chain_shapes(chain_.get(), shapes.data(), out.data(), &error), error);
    for (size_t i = 0; i < outputs_; ++i) {
        std::vector<int64_t> dims = {out[i].batch, out[i].channels, out[i].height, out[i].width};
        if (rank == 3) dims.erase(dims.begin() + 2);
        y[i] = static_cast<float*>(call.output(dims, i));
    }
    const hc_exec exec = call.exec();
    check(hc_chain_run(chain_.get(), shapes.data(), x.data(), y.data(), &exec, &error), error);
}

} // namespace hc::nodes
