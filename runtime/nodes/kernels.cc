#include "nodes/kernels.h"

namespace hc::nodes {
namespace {

// `count` values for 2 dimensions from an attribute of 1 or 2; a 1-D window is the last row of a 2-D one.
void spread(const Node& node, const char* name, size_t spatial, int64_t first, int64_t (&to)[2]) {
    const std::vector<int64_t> values = node.attributes(name);
    if (values.size() != spatial)
        fail(HC_INVALID_ARGUMENT, "%s has %zu values; kernel_shape has %zu", name, values.size(), spatial);
    to[0] = spatial == 2 ? values[0] : first;
    to[1] = values[spatial - 1];
}

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
    if (spatial_ != 1 && spatial_ != 2)
        fail(HC_INVALID_ARGUMENT, "kernel_shape has %zu values; wanted 1 or 2", spatial_);
    desc_.size = sizeof desc_;
    hc_window& window = desc_.window;
    spread(node, "kernel_shape", spatial_, 1, window.kernel);
    spread(node, "strides", spatial_, 1, window.strides);
    spread(node, "dilations", spatial_, 1, window.dilations);
    const std::vector<int64_t> pads = node.attributes("pads");
    if (pads.size() != 2 * spatial_)
        fail(HC_INVALID_ARGUMENT, "pads has %zu values; wanted %zu", pads.size(), 2 * spatial_);
    for (size_t end = 0; end < 2; ++end) {
        window.pads[2 * end] = spatial_ == 2 ? pads[end * spatial_] : 0;
        window.pads[2 * end + 1] = pads[end * spatial_ + spatial_ - 1];
    }
    for (const int64_t taps : window.kernel)
        if (taps < 1 || taps > INT32_MAX)
            fail(HC_INVALID_ARGUMENT, "kernel_shape holds %lld", static_cast<long long>(taps));
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
    if (x.dims.size() != spatial_ + 2 || x.dims[1] != desc_.x.channels)
        fail(HC_INVALID_ARGUMENT, "X has shape %s; wanted (B, %lld, %s)", text_of(x.dims).c_str(),
             static_cast<long long>(desc_.x.channels), spatial_ == 2 ? "H, W" : "L");
    hc_conv_desc desc = desc_;
    desc.x.batch = x.dims[0];
    desc.x.height = spatial_ == 2 ? x.dims[2] : 1;
    desc.x.width = x.dims.back();
    hc_error error{};
    int64_t height = 0, width = 0;
    check(hc_conv2d_output(&desc, &height, &width, &error), error);
    std::vector<int64_t> dims = {desc.x.batch, rows_};
    if (spatial_ == 2) dims.push_back(height);
    dims.push_back(width);
    float* y = static_cast<float*>(call.output(dims));
    const hc_epilogue epilogue = epilogue_.of(call, dims);
    const hc_exec exec = call.exec();
    check(hc_conv2d(weight_.get(), &desc, x.floats(), y, &epilogue, &exec, &error), error);
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
