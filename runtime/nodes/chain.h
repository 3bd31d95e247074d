// Y... = Chain(X..., (codes, codebook, scale, bias)...): a region of convolutions as one node. Its attributes:
//     activations: number of X
//     tensors: scale and zero of every tensor
//     outputs: tensors
//     steps: kChainFields integers each; bounds: low and high of each
#pragma once

#include "nodes/weight.h"

namespace hc::nodes {

constexpr Formal kChainInputs[] = {{kAny, kVariadic}};

class ChainKernel {
   public:
    static constexpr Signature signature = {"Chain", kChainInputs, 1, kVariadic};
    explicit ChainKernel(const Node& node);
    void run(Call& call) const;

   private:
    struct Deleter {
        void operator()(hc_chain* chain) const { hc_chain_close(chain); }
    };
    size_t inputs_, outputs_;
    std::vector<Weight> weights_;
    std::unique_ptr<hc_chain, Deleter> chain_;
};

} // namespace hc::nodes
