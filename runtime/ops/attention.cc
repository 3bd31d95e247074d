// hc_attention: a unit of work is a tile of queries of one head.
#include "hashcompile.h"
#include "kernels/table.h"
#include "layout.h"
#include "ops/parallel.h"
#include "ops/scratch.h"
#include "ops/weight.h"

namespace hc {
namespace {

constexpr double kProductNs = 0.02, kExponentialNs = 0.4; // for one multiplication, one score

size_t checked(const char* what, int64_t size) {
    if (size < 0) fail(HC_INVALID_ARGUMENT, "%s is %lld; wanted 0 or more", what, static_cast<long long>(size));
    return static_cast<size_t>(size);
}

// Q, K or V: where the features of one token of one head begin.
struct Tokens {
    const float* data;
    const int64_t* steps; // batch, head, token

    const float* at(size_t batch, size_t head, size_t token) const {
        return data + static_cast<int64_t>(batch) * steps[0] + static_cast<int64_t>(head) * steps[1] +
               static_cast<int64_t>(token) * steps[2];
    }
};

struct Problem {
    explicit Problem(const hc_attention_desc& desc)
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
        product(batch, keys, kv_heads, key_size, sizeof(float));
        product(batch, keys, kv_heads, value_size, sizeof(float));
        product(batch, heads, queries, keys, sizeof(float));
    }

    const hc_attention_desc& desc;
    size_t batch, queries, keys, heads, kv_heads, key_size, value_size, tiles;
    Tokens q{}, k{}, v{};
    const uint8_t* mask = nullptr;
    float* y = nullptr;

    MaskTile mask_tile(size_t b, size_t head, size_t query) const {
        if (desc.mask == HC_MASK_NONE) return {};
        const int64_t* steps = desc.mask_steps;
        const int64_t at = static_cast<int64_t>(b) * steps[0] + static_cast<int64_t>(head) * steps[1] +
                           static_cast<int64_t>(query) * steps[2];
        const bool bools = desc.mask == HC_MASK_BOOL;
        const int64_t width = bools ? 1 : static_cast<int64_t>(sizeof(float));
        return {mask + at * width, bools, steps[2], steps[3]};
    }

    double tile_ns() const {
        const double scores = static_cast<double>(keys) * kPair;
        return scores * (static_cast<double>(key_size + value_size) * kProductNs + kExponentialNs);
    }
};

// Room for the queries, scores and outputs of one tile.
struct Workspace {
    explicit Workspace(const Problem& p)
        : queries(product(p.key_size, kPair)), scores(product(p.keys, kPair)), outputs(product(p.value_size, kPair)) {}

    Scratch<float> queries, scores, outputs;
};

void attend(const Problem& p, const Attention& kernel, size_t b, size_t head, size_t first, Workspace& work) {
    const int count = static_cast<int>(p.queries - first < kPair ? p.queries - first : kPair);
    const size_t seen = first + static_cast<size_t>(count);
    const size_t keys = p.desc.causal && seen < p.keys ? seen : p.keys;
    const size_t kv_head = head / (p.heads / p.kv_heads);
    float* scores = work.scores.data();
    kernel.transpose(p.q.at(b, head, first), static_cast<size_t>(p.q.steps[2]), count, p.key_size, p.desc.scale,
                     work.queries.data());
    kernel.product(work.queries.data(), p.key_size, p.k.at(b, kv_head, 0), static_cast<size_t>(p.k.steps[2]), 1, keys,
                   scores);
    if (const MaskTile mask = p.mask_tile(b, head, first); mask.data) kernel.add_mask(mask, count, keys, scores);
    if (p.desc.causal) kernel.hide_later(first, keys, scores);
    float sum[kPair];
    kernel.exponentiate(scores, keys, sum);
    kernel.product(scores, keys, p.v.at(b, kv_head, 0), 1, static_cast<size_t>(p.v.steps[2]), p.value_size,
                   work.outputs.data());
    for (float& n : sum) n = n == 0.0f && (p.desc.hidden_is_zero || !p.keys) ? 0.0f : 1.0f / n;
    const size_t pitch = p.heads * p.value_size;
    kernel.transpose_back(work.outputs.data(), sum, count, p.value_size,
                          p.y + (b * p.queries + first) * pitch + head * p.value_size, pitch);
}

void attention(const Problem& p, const hc_exec* exec) {
    const Attention& kernel = select_attention(cap_of(p.desc.isa));
    parallel(exec, product(p.batch, p.heads, p.tiles), p.tile_ns(), [&](size_t begin, size_t end) {
        Workspace work(p);
        for (size_t unit = begin; unit < end; ++unit) {
            const size_t row = unit / p.tiles;
            attend(p, kernel, row / p.heads, row % p.heads, unit % p.tiles * kPair, work);
        }
    });
}

} // namespace
} // namespace hc

extern "C" hc_code hc_attention(const hc_attention_desc* desc, const float* q, const float* k, const float* v,
                                const void* mask, float* y, const hc_exec* exec, hc_error* error) {
    return hc::guarded(error, [&] {
        if (!desc || desc->size != sizeof(hc_attention_desc))
            hc::fail(HC_INVALID_ARGUMENT, "desc is null or of another version");
        hc::Problem problem(*desc);
        const size_t rows = hc::product(problem.batch, problem.queries, problem.heads);
        const size_t out = hc::product(rows, problem.value_size, sizeof(float));
        const size_t in = hc::product(rows, problem.key_size, sizeof(float));
        if ((in && !q) || (out && problem.keys && (!k || !v)) || (out && !y))
            hc::fail(HC_INVALID_ARGUMENT, "q, k, v or y is null");
        if (desc->mask != HC_MASK_NONE && out && problem.keys && !mask)
            hc::fail(HC_INVALID_ARGUMENT, "mask is null");
        if (!out) return;
        problem.q = {q, desc->q_steps};
        problem.k = {k, desc->k_steps};
        problem.v = {v, desc->v_steps};
        problem.mask = static_cast<const uint8_t*>(mask);
        problem.y = y;
        hc::attention(problem, exec);
    });
}
