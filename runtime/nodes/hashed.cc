#include "nodes/hashed.h"

#include "nodes/hashed_form.h"
#include "nodes/rows.h"

namespace hc::nodes {

HashedKernel::HashedKernel(const Node& node) : rows_(node.attribute("rows")), columns_(node.attribute("in_features")) {
    const hc_hashed_desc desc = described(node);
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
