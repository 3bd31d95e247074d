#include "tvm/cuda/kernels.h"

#include "kernels/layout.h"
#include "nodes/hashed_form.h"

namespace hc::tvm::cuda {
namespace {

constexpr size_t kResidual = 5;

hc_weight_desc weight_of(const Node& node, int64_t groups, bool has_bias) {
    const int64_t compute = has_bias ? node.attribute("compute") : int64_t{HC_FLOAT};
    if (compute != HC_FLOAT)
        fail(HC_INVALID_ARGUMENT, "compute is %lld; a GPU computes in float, 0", static_cast<long long>(compute));
    if (node.has_input(kResidual) || node.attribute_or("activation", "none") != "none")
        fail(HC_INVALID_ARGUMENT, "a GPU's kernel takes no residual and no activation");
    return nodes::described(node, 1, nodes::WeightForm::of(node, compute, groups), has_bias);
}

// The weight in the memory of the call's device.
hc_cuda_codebook on_device(const Call& call, const hc_weight_desc& weight) {
    hc_cuda_codebook copy{};
    copy.size = sizeof copy;
    copy.bits = weight.bits;
    copy.rows = weight.rows;
    copy.columns = weight.columns;
    copy.group_rows = weight.group_rows;
    copy.codes = call.constant(weight.codes, weight.codes_bytes);
    copy.codes_bytes = weight.codes_bytes;
    copy.codebook = call.constant(weight.codebook, weight.codebook_len);
    copy.codebook_len = weight.codebook_len;
    copy.scale = call.constant(weight.scale, weight.scale_len);
    copy.scale_len = weight.scale_len;
    copy.bias = call.constant(weight.bias, weight.bias_len);
    copy.bias_len = weight.bias_len;
    return copy;
}

hc_cuda_hashed on_device(const Call& call, const hc_hashed_desc& weight) {
    hc_cuda_hashed copy{};
    copy.size = sizeof copy;
    copy.seed = weight.seed;
    copy.rows = weight.rows;
    copy.columns = weight.columns;
    copy.side = kTile;
    copy.values = call.constant(weight.values, weight.values_len);
    copy.values_len = weight.values_len;
    copy.scale = call.constant(weight.scale, weight.scale_len);
    copy.scale_len = weight.scale_len;
    copy.bias = call.constant(weight.bias, weight.bias_len);
    copy.bias_len = weight.bias_len;
    return copy;
}

// Runs `product(call)`, which is m rows of X by a weight of so many, with a workspace.
template <class Product>
void multiply(const Call& call, const void* x, void* y, int64_t m, int64_t rows, Product&& product) {
    const size_t bytes = hc_cuda_workspace(m, rows);
    const Workspace workspace(bytes, call.stream());
    const hc_cuda_call given = call.of(x, y, &workspace, bytes);
    hc_error error{};
    nodes::check(product(&given, &error), error);
}

// Distances between numbers of images, dim by dim of (B, C, H, W).
void lay_out(int64_t (&steps)[4], const Shape& shape, bool channels_last) {
    const int64_t channels = static_cast<int64_t>(shape.channels), width = static_cast<int64_t>(shape.width);
    steps[0] = static_cast<int64_t>(shape.image());
    steps[1] = channels_last ? 1 : static_cast<int64_t>(shape.plane());
    steps[2] = channels_last ? width * channels : width;
    steps[3] = channels_last ? channels : 1;
}

} // namespace

LinearKernel::LinearKernel(const Node& node) : weight_(weight_of(node, 1, true)) {}

void LinearKernel::run(Call& call) const {
    const Tensor x = call.input(0);
    const nodes::Rows rows(x, weight_.columns, weight_.rows);
    void* y = call.output(rows.dims);
    const hc_cuda_codebook weight = on_device(call, weight_);
    const int64_t m = static_cast<int64_t>(rows.count);
    multiply(call, x.data, y, m, weight.rows, [&](const hc_cuda_call* given, hc_error* error) {
        return hc_cuda_linear(&weight, given, m, error);
    });
}

ConvKernel::ConvKernel(const Node& node) : form_(node), weight_(weight_of(node, form_.group(), true)) {}

void ConvKernel::run(Call& call) const {
    const Tensor x = call.input(0);
    const nodes::ConvForm::Images images = form_.of(x, weight_.rows);
    void* y = call.output(images.dims);
    const hc_cuda_codebook weight = on_device(call, weight_);
    hc_cuda_conv conv{};
    conv.size = sizeof conv;
    conv.x = images.desc.x;
    conv.window = images.desc.window;
    conv.groups = form_.group();
    lay_out(conv.x_steps, Shape(images.desc.x), images.desc.channels_last & HC_LAST_X);
    lay_out(conv.y_steps, images.out, images.desc.channels_last & HC_LAST_Y);
    const int64_t windows = static_cast<int64_t>(images.out.batch * images.out.plane());
    multiply(call, x.data, y, windows, weight.rows, [&](const hc_cuda_call* given, hc_error* error) {
        return hc_cuda_conv2d(&weight, given, &conv, error);
    });
}

EmbeddingKernel::EmbeddingKernel(const Node& node) : weight_(weight_of(node, 1, false)) {}

void EmbeddingKernel::run(Call& call) const {
    const Tensor ids = call.input(0, nodes::kInt64);
    std::vector<int64_t> dims = ids.dims;
    dims.push_back(weight_.columns);
    void* y = call.output(dims);
    const hc_cuda_codebook weight = on_device(call, weight_);
    const hc_cuda_call given = call.of(ids.data, y);
    hc_error error{};
    nodes::check(hc_cuda_embedding(&weight, &given, static_cast<int64_t>(ids.count()), &error), error);
}

HashedKernel::HashedKernel(const Node& node) : weight_(nodes::described(node)) {}

void HashedKernel::run(Call& call) const {
    const Tensor x = call.input(0);
    const nodes::Rows rows(x, weight_.columns, weight_.rows);
    void* y = call.output(rows.dims);
    const hc_cuda_hashed weight = on_device(call, weight_);
    const int64_t m = static_cast<int64_t>(rows.count);
    multiply(call, x.data, y, m, weight.rows, [&](const hc_cuda_call* given, hc_error* error) {
        return hc_cuda_hashed_linear(&weight, given, m, error);
    });
}

} // namespace hc::tvm::cuda
