// One attention: its sizes, and where its queries, keys, values and mask lie.
#pragma once

#include "hashcompile.h"
#include "layout.h"
#include "ops/sizes.h"
#include "table.h"

namespace hc {

// Q, K or V: where the features of one token of one head begin.
struct Tokens {
    const float* data;
    const int64_t* steps; // batch, head, token

    const float* at(size_t batch, size_t head, size_t token) const {
        return data + static_cast<int64_t>(batch) * steps[0] + static_cast<int64_t>(head) * steps[1] +
               static_cast<int64_t>(token) * steps[2];
    }
    size_t pitch() const { return static_cast<size_t>(steps[2]); }
};

// The mask of one head of one batch: for query i and key j at data + i * query_step + j * key_step, in values.
struct HeadMask {
    const void* data; // null for none
    bool bools;
    int64_t query_step, key_step;

    HeadMask from(size_t query) const {
        const int64_t width = bools ? 1 : static_cast<int64_t>(sizeof(float));
        const auto* bytes = static_cast<const uint8_t*>(data);
        return {data ? bytes + static_cast<int64_t>(query) * query_step * width : nullptr, bools, query_step, key_step};
    }
};

struct AttentionProblem {
    explicit AttentionProblem(const hc_attention_desc& desc); // fails on sizes that are not sane

    const hc_attention_desc& desc;
    size_t batch, queries, keys, heads, kv_heads, key_size, value_size;
    size_t tiles; // of kPair queries; the last one may have fewer
    Tokens q{}, k{}, v{};
    const uint8_t* mask = nullptr;
    float* y = nullptr;

    size_t kv_head(size_t head) const { return head / (heads / kv_heads); }
    size_t tile_queries(size_t first) const { return smaller(queries - first, kPair); }
    size_t out_pitch() const { return heads * value_size; }
    float* out(size_t b, size_t head, size_t query) const {
        return y + (b * queries + query) * out_pitch() + head * value_size;
    }
    HeadMask head_mask(size_t b, size_t head) const;

    // What multiplies the sum of exponentials' inverse in a row that sees no key: of infinity, 0 or NaN.
    float inverse_of_hidden() const { return desc.hidden_is_zero ? 0.0f : __builtin_nanf(""); }
};

void attention_f32(const AttentionProblem& of, const Attention& kernel, const hc_exec* exec);
void attention_i8(const AttentionProblem& of, const AttentionKernels& kernels, const hc_exec* exec);

} // namespace hc
