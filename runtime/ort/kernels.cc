#include "ort/kernels.h"

namespace hc::ort {
namespace {

void check(hc_code code, const hc_error& error) {
    if (code != HC_OK) fail(code, "%s", error.text);
}

std::string text_of(const std::vector<int64_t>& dims) {
    std::string text = "(";
    for (size_t i = 0; i < dims.size(); ++i) text += (i ? ", " : "") + std::to_string(dims[i]);
    return text + ")";
}

struct OpenWeight {
    int64_t rows, columns;
    Weight weight;
};

// The layout is in the shape of the codes, so a file made for another one is refused here.
void check_codes(const Tensor& codes, uint32_t bits, int64_t rows, int64_t columns) {
    const int64_t period = bits >= 1 && bits <= 8 ? 32 / static_cast<int64_t>(bits & -bits) : 1;
    const std::vector<int64_t> wanted = {(rows + 31) / 32,
                                         columns / period + (columns % period != 0),
                                         period * static_cast<int64_t>(bits) / 32,
                                         2,
                                         16,
                                         4};
    if (codes.dims != wanted)
        fail(HC_INVALID_ARGUMENT, "codes have shape %s; %u bits, %lld x %lld need %s", text_of(codes.dims).c_str(),
             bits, static_cast<long long>(rows), static_cast<long long>(columns), text_of(wanted).c_str());
}

OpenWeight open(const Node& node, int64_t compute, int64_t groups, bool has_bias) {
    const Tensor codes = node.constant(1, "codes", kUint8, kRequired);
    const Tensor codebook = node.constant(2, "codebook", kFloat, kRequired);
    const Tensor scale = node.constant(3, "scale", kFloat, kRequired);
    const Tensor bias = has_bias ? node.constant(4, "bias", kFloat, kOptional) : Tensor{};
    if (scale.dims.size() != 1)
        fail(HC_INVALID_ARGUMENT, "scale has shape %s; wanted (N)", text_of(scale.dims).c_str());
    if (codebook.dims.size() != 2)
        fail(HC_INVALID_ARGUMENT, "codebook has shape %s; wanted (groups, 2^bits)", text_of(codebook.dims).c_str());
    const int64_t bits = node.attribute("bits");
    if (bits < 1 || bits > 8)
        fail(HC_INVALID_ARGUMENT, "bits is %lld; an index has 1 to 8", static_cast<long long>(bits));
    if (compute != HC_FLOAT && compute != HC_INT8)
        fail(HC_INVALID_ARGUMENT, "compute is %lld; 0 is float, 1 is int8", static_cast<long long>(compute));

    hc_weight_desc desc{};
    desc.size = sizeof desc;
    desc.bits = static_cast<uint32_t>(bits);
    desc.compute = static_cast<uint32_t>(compute);
    desc.rows = scale.dims[0];
    desc.columns = node.attribute("in_features");
    desc.group_rows = node.attribute("group_rows");
    desc.groups = groups;
    if (desc.columns < 0) fail(HC_INVALID_ARGUMENT, "in_features is negative");
    check_codes(codes, desc.bits, desc.rows, desc.columns);
    desc.codes = static_cast<const uint8_t*>(codes.data);
    desc.codes_bytes = codes.count();
    desc.codebook = codebook.floats();
    desc.codebook_len = codebook.count();
    desc.scale = scale.floats();
    desc.scale_len = scale.count();
    desc.bias = bias.floats();
    desc.bias_len = bias.data ? bias.count() : 0;
    hc_weight* weight = nullptr;
    hc_error error{};
    check(hc_weight_open(&desc, &weight, &error), error);
    return {desc.rows, desc.columns, Weight(weight)};
}

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

Epilogue::Epilogue(const Node& node) : has_residual_(node.has_input(kResidual)) {
    epilogue_.size = sizeof epilogue_;
    epilogue_.activation = activation_named(node.attribute_or("activation", "none"));
    epilogue_.low = node.attribute_or("low", 0.0f);
    epilogue_.high = node.attribute_or("high", 0.0f);
}

hc_epilogue Epilogue::of(const Call& call, const std::vector<int64_t>& dims) const {
    hc_epilogue epilogue = epilogue_;
    if (!has_residual_) return epilogue;
    const Tensor residual = call.input(kResidual);
    if (residual.dims != dims)
        fail(HC_INVALID_ARGUMENT, "residual has shape %s; wanted %s", text_of(residual.dims).c_str(),
             text_of(dims).c_str());
    epilogue.residual = residual.floats();
    return epilogue;
}

LinearKernel::LinearKernel(const Node& node) : epilogue_(node) {
    OpenWeight open_weight = open(node, node.attribute("compute"), 1, true);
    rows_ = open_weight.rows;
    columns_ = open_weight.columns;
    weight_ = std::move(open_weight.weight);
}

void LinearKernel::run(Call& call) const {
    const Tensor x = call.input(0);
    if (x.dims.empty() || x.dims.back() != columns_)
        fail(HC_INVALID_ARGUMENT, "X has shape %s; wanted (..., %lld)", text_of(x.dims).c_str(),
             static_cast<long long>(columns_));
    std::vector<int64_t> dims = x.dims;
    dims.back() = 1;
    const size_t m = Tensor{nullptr, dims}.count();
    dims.back() = rows_;
    float* y = static_cast<float*>(call.output(dims));
    const hc_epilogue epilogue = epilogue_.of(call, dims);
    const hc_exec exec = call.exec();
    hc_error error{};
    check(hc_linear(weight_.get(), x.floats(), m, y, &epilogue, &exec, &error), error);
}

ConvKernel::ConvKernel(const Node& node)
    : spatial_(node.attributes("kernel_shape").size()), epilogue_(node) {
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
    OpenWeight open_weight = open(node, node.attribute("compute"), group, true);
    const int64_t taps = window.kernel[0] * window.kernel[1];
    if (open_weight.columns % taps)
        fail(HC_INVALID_ARGUMENT, "in_features is %lld; wanted kh * kw * C / group with a kernel of %lld x %lld",
             static_cast<long long>(open_weight.columns), static_cast<long long>(window.kernel[0]),
             static_cast<long long>(window.kernel[1]));
    if (__builtin_mul_overflow(open_weight.columns / taps, group, &desc_.x.channels))
        fail(HC_INVALID_ARGUMENT, "in_features * group overflows");
    rows_ = open_weight.rows;
    weight_ = std::move(open_weight.weight);
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
    OpenWeight open_weight = open(node, HC_FLOAT, 1, false);
    columns_ = open_weight.columns;
    weight_ = std::move(open_weight.weight);
}

void EmbeddingKernel::run(Call& call) const {
    const Tensor ids = call.input(0);
    std::vector<int64_t> dims = ids.dims;
    dims.push_back(columns_);
    float* y = static_cast<float*>(call.output(dims));
    const hc_exec exec = call.exec();
    hc_error error{};
    check(hc_embedding(weight_.get(), static_cast<const int64_t*>(ids.data), ids.count(), y, &exec, &error), error);
}

} // namespace hc::ort
