// hc_attention: what is asked, checked.
#include "ops/attention.h"

#include "ops/weight.h"

namespace hc {
namespace {

constexpr size_t kFewQueries = 8; // below, rounding the keys costs more than 8-bit products save

size_t checked(const char* what, int64_t size) {
    if (size < 0) fail(HC_INVALID_ARGUMENT, "%s is %lld; wanted 0 or more", what, static_cast<long long>(size));
    return static_cast<size_t>(size);
}

// Its products as sums of int32.
bool in_int8(const AttentionProblem& of) {
    return of.desc.compute == HC_INT8 && of.queries >= kFewQueries && of.keys && of.keys <= kSumColumns &&
           of.key_size <= kSumColumns;
}

} // namespace

AttentionProblem::AttentionProblem(const hc_attention_desc& desc)
    : desc(desc),
      batch(checked("batch", desc.batch)),
      queries(checked("queries", desc.queries)),
      keys(checked("keys", desc.keys)),
      heads(checked("heads", desc.heads)),
      kv_heads(checked("kv_heads", desc.kv_heads)),
      key_size(checked("key_size", desc.key_size)),
      value_size(checked("value_size", desc.value_size)),
      tiles(ceil_div(queries, kPair)) {
    if (heads ? !kv_heads || heads % kv_heads : kv_heads)
        fail(HC_INVALID_ARGUMENT, "%zu query heads on %zu heads of keys; wanted a multiple", heads, kv_heads);
    if (desc.mask < HC_MASK_NONE || desc.mask > HC_MASK_BOOL)
        fail(HC_INVALID_ARGUMENT, "mask is %d; wanted 0 (none), 1 (float) or 2 (bool)", desc.mask);
    if (desc.compute > HC_INT8)
        fail(HC_INVALID_ARGUMENT, "compute is %u; wanted 0 (float) or 1 (int8)", desc.compute);
    if (desc.reserved) fail(HC_INVALID_ARGUMENT, "reserved is %u; wanted 0", desc.reserved);
    product(batch, keys, kv_heads, key_size, sizeof(float));
    product(batch, keys, kv_heads, value_size, sizeof(float));
    product(batch, heads, queries, keys, sizeof(float));
}

HeadMask AttentionProblem::head_mask(size_t b, size_t head) const {
    if (desc.mask == HC_MASK_NONE) return {};
    const int64_t* steps = desc.mask_steps;
    const bool bools = desc.mask == HC_MASK_BOOL;
    const int64_t at = static_cast<int64_t>(b) * steps[0] + static_cast<int64_t>(head) * steps[1];
    return {mask + at * (bools ? 1 : static_cast<int64_t>(sizeof(float))), bools, steps[2], steps[3]};
}

} // namespace hc

extern "C" hc_code hc_attention(const hc_attention_desc* desc, const float* q, const float* k, const float* v,
                                const void* mask, float* y, const hc_exec* exec, hc_error* error) {
    using namespace hc;
    return guarded(error, [&] {
        if (!desc || desc->size != sizeof(hc_attention_desc))
            fail(HC_INVALID_ARGUMENT, "desc is null or of another version");
        AttentionProblem problem(*desc);
        const size_t rows = product(problem.batch, problem.queries, problem.heads);
        const size_t out = product(rows, problem.value_size, sizeof(float));
        const size_t in = product(rows, problem.key_size, sizeof(float));
        if ((in && !q) || (out && problem.keys && (!k || !v)) || (out && !y))
            fail(HC_INVALID_ARGUMENT, "q, k, v or y is null");
        if (desc->mask != HC_MASK_NONE && out && problem.keys && !mask) fail(HC_INVALID_ARGUMENT, "mask is null");
        const AttentionKernels kernels = select_attention(cap_of(desc->isa));
        if (!out) return;
        problem.q = {q, desc->q_steps};
        problem.k = {k, desc->k_steps};
        problem.v = {v, desc->v_steps};
        problem.mask = static_cast<const uint8_t*>(mask);
        problem.y = y;
        if (in_int8(problem))
            attention_i8(problem, kernels, exec);
        else
            attention_f32(problem, kernels.f32, exec);
    });
}
