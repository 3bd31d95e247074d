// A weight on codes as the constant inputs and the attributes of a node describe it, for the kernels of any device.
#pragma once

#include "hashcompile.h"
#include "nodes/host.h"

namespace hc::nodes {

// What the node says of a weight beside its inputs codes, codebook, scale and bias: attributes bits, in_features and
// group_rows, with what their names end in.
struct WeightForm {
    int64_t bits, columns, group_rows, groups, compute;

    static WeightForm of(const Node& node, int64_t compute, int64_t groups, const std::string& ending = "");
};

// The weight, whose arrays stay where the node has them. `first` is the input that holds the codes; the others follow, the
// bias where the op has one.
hc_weight_desc described(const Node& node, size_t first, const WeightForm& form, bool has_bias);

} // namespace hc::nodes
