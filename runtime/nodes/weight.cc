#include "nodes/weight.h"

namespace hc::nodes {

OpenWeight open_weight(const Node& node, size_t first, const WeightForm& form, bool has_bias) {
    const hc_weight_desc desc = described(node, first, form, has_bias);
    hc_weight* weight = nullptr;
    hc_error error{};
    check(hc_weight_open(&desc, &weight, &error), error);
    return {desc.rows, desc.columns, Weight(weight)};
}

} // namespace hc::nodes
