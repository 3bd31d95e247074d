// Y (..., N2) = FeedForward(X (..., K), codes, codebook, scale, bias?, codes_2, codebook_2, scale_2, bias_2?, residual?):
// CodebookLinear with an activation, and CodebookLinear of that. Attributes are those of the two; the second's end in _2,
// but for compute, which they share.
#pragma once

#include "nodes/kernels.h"

namespace hc::nodes {

constexpr Formal kFeedForwardInputs[] = {{kFloat, kRequired}, {kUint8, kRequired}, {kFloat, kRequired},
                                         {kFloat, kRequired}, {kFloat, kOptional}, {kUint8, kRequired},
                                         {kFloat, kRequired}, {kFloat, kRequired}, {kFloat, kOptional},
                                         {kFloat, kOptional}};

class FeedForwardKernel {
   public:
    static constexpr Signature signature = {"FeedForward", kFeedForwardInputs, 10, kRequired};
    explicit FeedForwardKernel(const Node& node);
    void run(Call& call) const;

   private:
    OpenWeight up_, down_;
    Epilogue between_, after_;
};

} // namespace hc::nodes
