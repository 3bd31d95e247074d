#include "nodes/kernels.h"

namespace hc::nodes {
namespace {

hc_activation activation_named(const std::string& name) {
    constexpr const char* names[HC_ACTIVATION_END] = {"none", "relu", "clip", "gelu", "gelu_tanh", "silu",
                                                      "hard_swish"};
    for (hc_activation i = HC_NONE; i < HC_ACTIVATION_END; ++i)
        if (name == names[i]) return i;
    fail(HC_INVALID_ARGUMENT, "activation is '%s'; wanted none, relu, clip, gelu, gelu_tanh, silu or hard_swish",
         name.c_str());
}

constexpr size_t kResidual = 5;

} // namespace

Epilogue::Epilogue(const Node& node, size_t residual, const std::string& ending)
    : residual_(residual), has_residual_(node.has_input(residual)) {
    epilogue_.size = sizeof epilogue_;
    epilogue_.activation = activation_named(node.attribute_or(("activation" + ending).c_str(), "none"));
    epilogue_.low = node.attribute_or(("low" + ending).c_str(), 0.0f);
    epilogue_.high = node.attribute_or(("high" + ending).c_str(), 0.0f);
}

hc_epilogue Epilogue::of(const Call& call, const std::vector<int64_t>& dims) const {
    hc_epilogue epilogue = epilogue_;
    if (!has_residual_) return epilogue;
    const Tensor residual = call.input(residual_);
    if (residual.dims != dims)
        fail(HC_INVALID_ARGUMENT, "residual has shape %s; wanted %s", text_of(residual.dims).c_str(),
             text_of(dims).c_str());
    epilogue.residual = residual.floats();
    return epilogue;
}

LinearKernel::LinearKernel(const Node& node)
    : weight_(open_weight(node, 1, WeightForm::of(node, node.attribute("compute"), 1), true)),
      epilogue_(node, kResidual) {}

void LinearKernel::run(Call& call) const {
    const Tensor x = call.input(0);
    const Rows rows(x, weight_.columns, weight_.rows);
    float* y = static_cast<float*>(call.output(rows.dims));
    const hc_epilogue epilogue = epilogue_.of(call, rows.dims);
    const hc_exec exec = call.exec();
    hc_error error{};
    check(hc_linear(weight_.weight.get(), x.floats(), rows.count, y, &epilogue, &exec, &error), error);
}

ConvKernel::ConvKernel(const Node& node) : form_(node), epilogue_(node, kResidual) {
    OpenWeight opened = open_weight(node, 1, WeightForm::of(node, node.attribute("compute"), form_.group()), true);
    rows_ = opened.rows;
    weight_ = std::move(opened.weight);
}

void ConvKernel::run(Call& call) const {
    const Tensor x = call.input(0);
    const ConvForm::Images images = form_.of(x, rows_);
    float* y = static_cast<float*>(call.output(images.dims));
    const hc_epilogue epilogue = epilogue_.of(call, images.dims);
    const hc_exec exec = call.exec();
    hc_error error{};
    check(hc_conv2d(weight_.get(), &images.desc, x.floats(), y, &epilogue, &exec, &error), error);
}

void ActivationKernel::run(Call& call) const {
    const Tensor x = call.input(0);
    float* y = static_cast<float*>(call.output(x.dims));
    const hc_epilogue epilogue = epilogue_.of(call, x.dims);
    const hc_exec exec = call.exec();
    hc_error error{};
    check(hc_activate(HC_ISA_AUTO, &epilogue, x.floats(), x.count(), y, &exec, &error), error);
}

EmbeddingKernel::EmbeddingKernel(const Node& node) {
    OpenWeight opened = open_weight(node, 1, WeightForm::of(node, HC_FLOAT, 1), false);
    columns_ = opened.columns;
    weight_ = std::move(opened.weight);
}

void EmbeddingKernel::run(Call& call) const {
    const Tensor ids = call.input(0, kInt64);
    std::vector<int64_t> dims = ids.dims;
    dims.push_back(columns_);
    float* y = static_cast<float*>(call.output(dims));
    const hc_exec exec = call.exec();
    hc_error error{};
    check(hc_embedding(weight_.get(), static_cast<const int64_t*>(ids.data), ids.count(), y, &exec, &error), error);
}

} // namespace hc::nodes
