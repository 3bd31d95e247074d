// A weight from the constant inputs of a node.
#pragma once

#include <memory>

#include "nodes/weight_form.h"

namespace hc::nodes {

struct WeightDeleter {
    void operator()(hc_weight* weight) const { hc_weight_close(weight); }
};
using Weight = std::unique_ptr<hc_weight, WeightDeleter>;

struct OpenWeight {
    int64_t rows, columns;
    Weight weight;
};

// Arguments as of `described`.
OpenWeight open_weight(const Node& node, size_t first, const WeightForm& form, bool has_bias);

} // namespace hc::nodes
