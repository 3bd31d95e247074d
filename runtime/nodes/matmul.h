// Y (..., M, N) = MatMul(X (..., M, K), W (..., K, N)), with as many dims, of the same sizes, in front. Attribute:
// transposed (1: W is (..., N, K)).
#pragma once

#include "hashcompile.h"
#include "nodes/host.h"

namespace hc::nodes {

constexpr Formal kMatMulInputs[] = {{kFloat, kRequired}, {kFloat, kRequired}};

class MatMulKernel {
   public:
    static constexpr Signature signature = {"MatMul", kMatMulInputs, 2, kRequired};
    explicit MatMulKernel(const Node& node);
    void run(Call& call) const;

   private:
    hc_matmul_desc desc_{};
};

} // namespace hc::nodes
