// Y (..., N) = Norm(X (..., N), weight? (N), bias? (N), residual? (..., N)): layer norm, or RMS norm, of X + residual
// over its last dimension. Attributes: centered (1: layer norm), epsilon.
#pragma once

#include "hashcompile.h"
#include "nodes/host.h"

namespace hc::nodes {

constexpr Formal kNormInputs[] = {{kFloat, kRequired}, {kFloat, kOptional}, {kFloat, kOptional}, {kFloat, kOptional}};

class NormKernel {
   public:
    static constexpr Signature signature = {"Norm", kNormInputs, 4, kRequired};
    explicit NormKernel(const Node& node);
    void run(Call& call) const;

   private:
    bool has_weight_, has_bias_, has_residual_;
    hc_norm_desc desc_{};
};

} // namespace hc::nodes
