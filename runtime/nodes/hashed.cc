#include "nodes/hashed.h"

#include "nodes/kernels.h"

namespace hc::nodes {

HashedKernel::HashedKernel(const Node& node) : rows_(node.attribute("rows")), columns_(node.attribute("in_features")) {
    const size_t scaled = node.attribute("scaled") != 0;
    const Tensor scale = scaled ? node.constant(1, "scale", kFloat, kRequired) : Tensor{};
    const Tensor values = node.constant(1 + scaled, "values", kFloat, kRequired);
    const Tensor bias = node.constant(2 + scaled, "bias", kFloat, kOptional);
    const int64_t seed = node.attribute("seed");
    if (seed < 0 || seed > INT32_MAX) fail(HC_INVALID_ARGUMENT, "seed is %lld", static_cast<long long>(seed));
    hc_hashed_desc desc{};
    desc.size = sizeof desc;
    desc.rows = rows_;
    desc.columns = columns_;
    desc.seed = static_cast<uint32_t>(seed);
    desc.values = values.floats();
    desc.values_len = values.count();
    desc.scale = scale.floats();
    desc.scale_len = scale.data ? scale.count() : 0;
    desc.bias = bias.floats();
    desc.bias_len = bias.data ? bias.count() : 0;
    hc_hashed* weight = nullptr;
    hc_error error{};
    check(hc_hashed_open(&desc, &weight, &error), error);
    weight_.reset(weight);
}

void HashedKernel::run(Call& call) const {
    const Tensor x = call.input(0);
    const Rows rows(x, columns_, rows_);
    float* y = static_cast<float*>(call.output(rows.dims));
    const hc_exec exec = call.exec();
    hc_error error{};
    check(hc_hashed_linear(weight_.get(), x.floats(), rows.count, y, &exec, &error), error);
}

} // namespace hc::nodes
