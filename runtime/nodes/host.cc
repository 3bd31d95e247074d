#include "nodes/host.h"

#include "ops/sizes.h"

namespace hc::nodes {

size_t Tensor::count() const {
    size_t count = 1;
    for (const int64_t dim : dims) count = product(count, static_cast<size_t>(dim));
    return count;
}

void check(hc_code code, const hc_error& error) {
    if (code != HC_OK) fail(code, "%s", error.text);
}

std::string text_of(const std::vector<int64_t>& dims) {
    std::string text = "(";
    for (size_t i = 0; i < dims.size(); ++i) text += (i ? ", " : "") + std::to_string(dims[i]);
    return text + ")";
}

} // namespace hc::nodes
