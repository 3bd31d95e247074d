#include "nodes/matmul.h"

#include "nodes/weight.h"

namespace hc::nodes {

MatMulKernel::MatMulKernel(const Node& node) {
    desc_.size = sizeof desc_;
    desc_.transposed = node.attribute("transposed") != 0;
}

void MatMulKernel::run(Call& call) const {
    const Tensor x = call.input(0), w = call.input(1);
    const size_t rank = x.dims.size();
    hc_matmul_desc desc = desc_;
    if (rank >= 2 && w.dims.size() == rank) {
        desc.rows = x.dims[rank - 2];
        desc.inner = x.dims[rank - 1];
        desc.columns = w.dims[desc.transposed ? rank - 2 : rank - 1];
    }
    std::vector<int64_t> wanted = x.dims;
    if (rank >= 2) {
        wanted[rank - 2] = desc.transposed ? desc.columns : desc.inner;
        wanted[rank - 1] = desc.transposed ? desc.inner : desc.columns;
    }
    if (rank < 2 || w.dims != wanted)
        fail(HC_INVALID_ARGUMENT, "X has shape %s, W %s; wanted (..., M, K) and (..., %s)", text_of(x.dims).c_str(),
             text_of(w.dims).c_str(), desc.transposed ? "N, K" : "K, N");
    desc.batch = 1;
    for (size_t i = 0; i + 2 < rank; ++i) desc.batch *= x.dims[i]; // of a tensor that is in memory
    std::vector<int64_t> dims = x.dims;
    dims.back() = desc.columns;
    float* y = static_cast<float*>(call.output(dims));
    const hc_exec exec = call.exec();
    hc_error error{};
    check(hc_matmul(&desc, x.floats(), w.floats(), y, &exec, &error), error);
}

} // namespace hc::nodes
