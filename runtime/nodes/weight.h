// A weight from the constant inputs of a node.
#pragma once

#include <memory>

#include "hashcompile.h"
#include "nodes/host.h"

namespace hc::nodes {

struct WeightDeleter {
    void operator()(hc_weight* weight) const { hc_weight_close(weight); }
};
using Weight = std::unique_ptr<hc_weight, WeightDeleter>;

// What the node says of a weight beside its inputs codes, codebook, scale and bias: attributes bits, in_features and
// group_rows, with what their names end in.
struct WeightForm {
    int64_t bits, columns, group_rows, groups, compute;

    static WeightForm of(const Node& node, int64_t compute, int64_t groups, const std::string& ending = "");
};

struct OpenWeight {
    int64_t rows, columns;
    Weight weight;
};

// `first` is the input that holds the codes; the others follow, the bias where the op has one.
OpenWeight open_weight(const Node& node, size_t first, const WeightForm& form, bool has_bias);

// Turns the code of a call of the C ABI into a Failure.
void check(hc_code code, const hc_error& error);

std::string text_of(const std::vector<int64_t>& dims);

} // namespace hc::nodes
