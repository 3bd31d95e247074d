#include "nodes/rows.h"

namespace hc::nodes {

Rows::Rows(const Tensor& x, int64_t columns, int64_t rows) : dims(x.dims) {
    if (dims.empty() || dims.back() != columns)
        fail(HC_INVALID_ARGUMENT, "X has shape %s; wanted (..., %lld)", text_of(dims).c_str(),
             static_cast<long long>(columns));
    dims.back() = 1;
    count = Tensor{nullptr, dims}.count();
    dims.back() = rows;
}

} // namespace hc::nodes
