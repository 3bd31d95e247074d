#include "nodes/norm.h"

#include "nodes/weight.h"

namespace hc::nodes {
namespace {

const float* row(const Call& call, size_t index, const char* name, int64_t columns) {
    const Tensor values = call.input(index);
    if (values.dims != std::vector<int64_t>{columns})
        fail(HC_INVALID_ARGUMENT, "%s has shape %s; wanted (%lld)", name, text_of(values.dims).c_str(),
             static_cast<long long>(columns));
    return values.floats();
}

} // namespace

NormKernel::NormKernel(const Node& node)
    : has_weight_(node.has_input(1)), has_bias_(node.has_input(2)), has_residual_(node.has_input(3)) {
    desc_.size = sizeof desc_;
    desc_.centered = node.attribute("centered") != 0;
    desc_.epsilon = node.float_attribute("epsilon");
}

void NormKernel::run(Call& call) const {
    const Tensor x = call.input(0);
    if (x.dims.empty()) fail(HC_INVALID_ARGUMENT, "X is a scalar; wanted (..., N)");
    hc_norm_desc desc = desc_;
    desc.columns = x.dims.back();
    desc.rows = 1;
    for (size_t i = 0; i + 1 < x.dims.size(); ++i) desc.rows *= x.dims[i]; // of a tensor that is in memory
    desc.weight = has_weight_ ? row(call, 1, "weight", desc.columns) : nullptr;
    desc.bias = has_bias_ ? row(call, 2, "bias", desc.columns) : nullptr;
    Tensor residual;
    if (has_residual_) {
        residual = call.input(3);
        if (residual.dims != x.dims)
            fail(HC_INVALID_ARGUMENT, "residual has shape %s; wanted %s", text_of(residual.dims).c_str(),
                 text_of(x.dims).c_str());
    }
    float* y = static_cast<float*>(call.output(x.dims));
    const hc_exec exec = call.exec();
    hc_error error{};
    check(hc_norm(&desc, x.floats(), residual.floats(), y, &exec, &error), error);
}

} // namespace hc::nodes
