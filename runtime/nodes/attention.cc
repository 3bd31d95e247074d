#include "nodes/attention.h"

#include <math.h>
#include <string.h>

namespace hc::nodes {
namespace {

// How one of Q, K and V lies in memory.
struct Layout {
    int64_t batch, tokens, size; // features of one head
    int64_t steps[3];            // from batch to batch, head to head, token to token
};

int64_t heads_of(const Node& node, const char* name) {
    const int64_t heads = node.attribute(name);
    if (heads < 1 || heads > INT32_MAX)
        fail(HC_INVALID_ARGUMENT, "%s is %lld; wanted 1 to %d", name, static_cast<long long>(heads), INT32_MAX);
    return heads;
}

int64_t divided(int64_t features, int64_t heads, const char* name, const Tensor& x) {
    if (features % heads)
        fail(HC_INVALID_ARGUMENT, "%s has shape %s; wanted features for %lld heads", name, text_of(x.dims).c_str(),
             static_cast<long long>(heads));
    return features / heads;
}

Layout layout_of(const Tensor& x, int64_t heads, const char* name) {
    const std::vector<int64_t>& d = x.dims;
    if (d.size() == 4 && d[1] == heads) return {d[0], d[2], d[3], {d[1] * d[2] * d[3], d[2] * d[3], d[3]}};
    if (d.size() != 3)
        fail(HC_INVALID_ARGUMENT, "%s has shape %s; wanted (B, S, %lld * D) or (B, %lld, S, D)", name,
             text_of(d).c_str(), static_cast<long long>(heads), static_cast<long long>(heads));
    const int64_t size = divided(d[2], heads, name, x);
    return {d[0], d[1], size, {d[1] * d[2], size, d[2]}};
}

// Steps over a mask of up to 4 dimensions that broadcasts to (B, H, Sq, Sk).
void set_mask(const Tensor& mask, hc_attention_desc& desc) {
    const int64_t wanted[4] = {desc.batch, desc.heads, desc.queries, desc.keys};
    const size_t rank = mask.dims.size();
    int64_t step = 1;
    bool fits = rank <= 4;
    for (size_t i = rank; fits && i-- > 0;) {
        const size_t at = 4 - rank + i;
        fits = mask.dims[i] == 1 || mask.dims[i] == wanted[at];
        desc.mask_steps[at] = mask.dims[i] == 1 ? 0 : step;
        step *= mask.dims[i];
    }
    if (!fits)
        fail(HC_INVALID_ARGUMENT, "the mask has shape %s; wanted what broadcasts to (%lld, %lld, %lld, %lld)",
             text_of(mask.dims).c_str(), static_cast<long long>(wanted[0]), static_cast<long long>(wanted[1]),
             static_cast<long long>(wanted[2]), static_cast<long long>(wanted[3]));
    if (mask.type != kFloat && mask.type != kBool)
        fail(HC_INVALID_ARGUMENT, "the mask has element type %d; wanted float or bool", mask.type);
    desc.mask = mask.type == kBool ? HC_MASK_BOOL : HC_MASK_FLOAT;
}

} // namespace

AttentionKernel::AttentionKernel(const Node& node) : packed_(!node.has_input(1)), masked_(node.has_input(3)) {
    if (packed_ == node.has_input(2)) fail(HC_INVALID_ARGUMENT, "keys and values come together, or not at all");
    desc_.size = sizeof desc_;
    desc_.heads = heads_of(node, "num_heads");
    desc_.kv_heads = heads_of(node, "kv_heads");
    desc_.causal = node.attribute("is_causal") != 0;
    desc_.hidden_is_zero = node.attribute("hidden_is_zero") != 0;
    const int64_t compute = node.attribute_or("compute", int64_t{HC_FLOAT});
    if (compute != HC_FLOAT && compute != HC_INT8)
        fail(HC_INVALID_ARGUMENT, "compute is %lld; wanted 0 (float) or 1 (int8)", static_cast<long long>(compute));
    desc_.compute = static_cast<uint32_t>(compute);
    desc_.scale = node.attribute_or("scale", NAN);
    if (isnan(desc_.scale)) fail(HC_INVALID_ARGUMENT, "scale is missing or NaN");
}

void AttentionKernel::run(Call& call) const {
    hc_attention_desc desc = desc_;
    const Tensor q = call.input(0);
    const float *keys, *values;
    Layout query, key, value;
    if (packed_) {
        if (q.dims.size() != 3)
            fail(HC_INVALID_ARGUMENT, "Q has shape %s; wanted (B, S, features)", text_of(q.dims).c_str());
        query = {q.dims[0], q.dims[1], divided(q.dims[2], desc.heads + 2 * desc.kv_heads, "Q", q), {}};
        const int64_t steps[3] = {q.dims[1] * q.dims[2], query.size, q.dims[2]};
        memcpy(query.steps, steps, sizeof steps);
        key = value = query;
        keys = q.floats() + desc.heads * query.size;
        values = keys + desc.kv_heads * query.size;
    } else {
        const Tensor k = call.input(1), v = call.input(2);
        query = layout_of(q, desc.heads, "Q");
        key = layout_of(k, desc.kv_heads, "K");
        value = layout_of(v, desc.kv_heads, "V");
        keys = k.floats();
        values = v.floats();
        if (key.batch != query.batch || value.batch != query.batch || key.size != query.size ||
            value.tokens != key.tokens)
            fail(HC_INVALID_ARGUMENT, "Q, K and V have shapes %s, %s and %s, which do not fit",
                 text_of(q.dims).c_str(), text_of(k.dims).c_str(), text_of(v.dims).c_str());
    }
    desc.batch = query.batch;
    desc.queries = query.tokens;
    desc.keys = key.tokens;
    desc.key_size = query.size;
    desc.value_size = value.size;
    memcpy(desc.q_steps, query.steps, sizeof query.steps);
    memcpy(desc.k_steps, key.steps, sizeof key.steps);
    memcpy(desc.v_steps, value.steps, sizeof value.steps);
    const Tensor mask = masked_ ? call.input(3, kAny) : Tensor{};
    if (masked_) set_mask(mask, desc);
    auto* y = static_cast<float*>(call.output({desc.batch, desc.queries, desc.heads * desc.value_size}));
    const hc_exec exec = call.exec();
    hc_error error{};
    check(hc_attention(&desc, q.floats(), keys, values, mask.data, y, &exec, &error), error);
}

} // namespace hc::nodes
