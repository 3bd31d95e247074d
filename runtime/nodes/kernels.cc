#include "nodes/kernels.h"

#include "nodes/window.h"

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

Rows::Rows(const Tensor& x, int64_t columns, int64_t rows) : dims(x.dims) {
    if (dims.empty() || dims.back() != columns)
        fail(HC_INVALID_ARGUMENT, "X has shape %s; wanted (..., %lld)", text_of(dims).c_str(),
             static_cast<long long>(columns));
    dims.back() = 1;
    count = Tensor{nullptr, dims}.count();
    dims.back() = rows;
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

ConvKernel::ConvKernel(const Node& node)
    : spatial_(node.attributes("kernel_shape").size()), epilogue_(node, kResidual) {
    desc_.size = sizeof desc_;
    desc_.window = window_of(node);
    const hc_window& window = desc_.window;
    const int64_t last = node.attribute_or("channels_last", int64_t{0});
    if (last < 0 || last > (HC_LAST_X | HC_LAST_Y))
        fail(HC_INVALID_ARGUMENT, "channels_last is %lld; wanted 0 to 3", static_cast<long long>(last));
    desc_.channels_last = static_cast<uint32_t>(last);
    const int64_t group = node.attribute_or("group", int64_t{1});
    OpenWeight opened = open_weight(node, 1, WeightForm::of(node, node.attribute("compute"), group), true);
    const int64_t taps = window.kernel[0] * window.kernel[1];
    if (opened.columns % taps)
        fail(HC_INVALID_ARGUMENT, "in_features is %lld; wanted kh * kw * C / group with a kernel of %lld x %lld",
             static_cast<long long>(opened.columns), static_cast<long long>(window.kernel[0]),
             static_cast<long long>(window.kernel[1]));
    if (__builtin_mul_overflow(opened.columns / taps, group, &desc_.x.channels))
        fail(HC_INVALID_ARGUMENT, "in_features * group overflows");
    rows_ = opened.rows;
    weight_ = std::move(opened.weight);
}

void ConvKernel::run(Call& call) const {
    const Tensor x = call.input(0);
    const size_t rank = spatial_ + 2, channels = desc_.channels_last & HC_LAST_X ? rank - 1 : 1;
    if (x.dims.size() != rank || x.dims[channels] != desc_.x.channels) {
        const std::string space = spatial_ == 2 ? "H, W" : "L", width = std::to_string(desc_.x.channels);
        fail(HC_INVALID_ARGUMENT, "X has shape %s; wanted (B, %s)", text_of(x.dims).c_str(),
             (channels == 1 ? width + ", " + space : space + ", " + width).c_str());
    }
    std::vector<int64_t> dims = x.dims;
    dims.erase(dims.begin() + static_cast<ptrdiff_t>(channels));
    hc_conv_desc desc = desc_;
    desc.x.batch = dims[0];
    desc.x.height = spatial_ == 2 ? dims[1] : 1;
    desc.x.width = dims.back();
    hc_error error{};
    int64_t height = 0, width = 0;
    check(hc_conv2d_output(&desc, &height, &width, &error), error);
    if (spatial_ == 2) dims[1] = height;
    dims.back() = width;
    dims.insert(desc_.channels_last & HC_LAST_Y ? dims.end() : dims.begin() + 1, rows_);
    float* y = static_cast<float*>(call.output(dims));
    const hc_epilogue epilogue = epilogue_.of(call, dims);
    const hc_exec exec = call.exec();
    check(hc_conv2d(weight_.get(), &desc, x.floats(), y, &epilogue, &exec, &error), error);
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
