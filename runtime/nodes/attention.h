// Y (B, Sq, H * Dv) = Attention(Q, K, V, mask?), or of Q alone, where it holds all three.
//
// Q, K and V are (B, S, H * D), as linear layers leave them, or (B, H, S, D). The packed form is (B, S, (H + 2 Hkv) * D):
// the heads of the queries, then those of the keys, then those of the values. The mask, bool or float, broadcasts to
// (B, H, Sq, Sk). Attributes: num_heads, kv_heads, scale, is_causal, hidden_is_zero.
#pragma once

#include "nodes/weight.h"

namespace hc::nodes {

constexpr Formal kAttentionInputs[] = {{kFloat, kRequired}, {kFloat, kOptional}, {kFloat, kOptional}, {kAny, kOptional}};

class AttentionKernel {
   public:
    static constexpr Signature signature = {"Attention", kAttentionInputs, 4, kRequired};
    explicit AttentionKernel(const Node& node);
    void run(Call& call) const;

   private:
    bool packed_, masked_;
    hc_attention_desc desc_{};
};

} // namespace hc::nodes
