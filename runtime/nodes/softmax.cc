#include "nodes/softmax.h"

#include "nodes/weight.h"

namespace hc::nodes {

SoftmaxKernel::SoftmaxKernel(const Node& node) {
    desc_.size = sizeof desc_;
    desc_.log = node.attribute("log") != 0;
}

void SoftmaxKernel::run(Call& call) const {
    const Tensor x = call.input(0);
    if (x.dims.empty()) fail(HC_INVALID_ARGUMENT, "X is a scalar; wanted (..., N)");
    hc_softmax_desc desc = desc_;
    desc.columns = x.dims.back();
    desc.rows = 1;
    for (size_t i = 0; i + 1 < x.dims.size(); ++i) desc.rows *= x.dims[i]; // of a tensor that is in memory
    float* y = static_cast<float*>(call.output(x.dims));
    const hc_exec exec = call.exec();
    hc_error error{};
    check(hc_softmax(&desc, x.floats(), y, &exec, &error), error);
}

} // namespace hc::nodes
