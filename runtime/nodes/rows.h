#pragma once

#include "nodes/host.h"

namespace hc::nodes {

// X (..., columns) as rows.
struct Rows {
    size_t count;
    std::vector<int64_t> dims; // of Y (..., `rows`)

    Rows(const Tensor& x, int64_t columns, int64_t rows); // fails where X has another number of columns
};

} // namespace hc::nodes
