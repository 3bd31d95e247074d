// Y (..., N) = Softmax(X (..., N)) over N. Attribute: log (1: its logarithm).
#pragma once

#include "hashcompile.h"
#include "nodes/host.h"

namespace hc::nodes {

constexpr Formal kSoftmaxInputs[] = {{kFloat, kRequired}};

class SoftmaxKernel {
   public:
    static constexpr Signature signature = {"Softmax", kSoftmaxInputs, 1, kRequired};
    explicit SoftmaxKernel(const Node& node);
    void run(Call& call) const;

   private:
    hc_softmax_desc desc_{};
};

} // namespace hc::nodes
