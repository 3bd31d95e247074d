#include "nodes/hashed_form.h"

namespace hc::nodes {

hc_hashed_desc described(const Node& node) {
    const size_t scaled = node.attribute("scaled") != 0;
    const Tensor scale = scaled ? node.constant(1, "scale", kFloat, kRequired) : Tensor{};
    const Tensor values = node.constant(1 + scaled, "values", kFloat, kRequired);
    const Tensor bias = node.constant(2 + scaled, "bias", kFloat, kOptional);
    const int64_t seed = node.attribute("seed");
    if (seed < 0 || seed > INT32_MAX) fail(HC_INVALID_ARGUMENT, "seed is %lld", static_cast<long long>(seed));
    hc_hashed_desc desc{};
    desc.size = sizeof desc;
    desc.rows = node.attribute("rows");
    desc.columns = node.attribute("in_features");
    desc.seed = static_cast<uint32_t>(seed);
    desc.values = values.floats();
    desc.values_len = values.count();
    desc.scale = scale.floats();
    desc.scale_len = scale.data ? scale.count() : 0;
    desc.bias = bias.floats();
    desc.bias_len = bias.data ? bias.count() : 0;
    return desc;
}

} // namespace hc::nodes
