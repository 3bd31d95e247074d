// Y (B, OH, OW, C) = Pool(X (B, H, W, C)). Attributes: average (0: the maximum), counts_padding, and a window; global 1: one
// window, as large as the image, and no other attribute of a window.
#pragma once

#include "hashcompile.h"
#include "nodes/host.h"

namespace hc::nodes {

constexpr Formal kPoolInputs[] = {{kFloat, kRequired}};

class PoolKernel {
   public:
    static constexpr Signature signature = {"Pool", kPoolInputs, 1, kRequired};
    explicit PoolKernel(const Node& node);
    void run(Call& call) const;

   private:
    bool global_;
    hc_pool_desc desc_{};
};

} // namespace hc::nodes
