// Attention in fp32: a unit of work is a tile of queries of one head.
#include "ops/attention.h"
#include "ops/parallel.h"
#include "ops/scratch.h"

namespace hc {
namespace {

constexpr double kProductNs = 0.02, kExponentialNs = 0.4; // for one multiplication, one score

double tile_ns(const AttentionProblem& of) {
    const double scores = static_cast<double>(of.keys) * kPair;
    return scores * (static_cast<double>(of.key_size + of.value_size) * kProductNs + kExponentialNs);
}

// Room for the queries, scores and outputs of one tile.
struct Workspace {
    explicit Workspace(const AttentionProblem& of)
        : queries(product(of.key_size, kPair)), scores(product(of.keys, kPair)), outputs(product(of.value_size, kPair)) {}

    Scratch<float> queries, scores, outputs;
};

void attend(const AttentionProblem& of, const Attention& kernel, size_t b, size_t head, size_t first, Workspace& work) {
    const int count = static_cast<int>(of.tile_queries(first));
    const size_t seen = first + static_cast<size_t>(count);
    const size_t keys = of.desc.causal ? smaller(seen, of.keys) : of.keys;
    const size_t kv_head = of.kv_head(head);
    float* scores = work.scores.data();
    kernel.transpose(of.q.at(b, head, first), of.q.pitch(), count, of.key_size, of.desc.scale, work.queries.data());
    kernel.product(work.queries.data(), of.key_size, of.k.at(b, kv_head, 0), of.k.pitch(), 1, keys, scores);
    const HeadMask mask = of.head_mask(b, head).from(first);
    if (mask.data) kernel.add_mask({mask.data, mask.bools, mask.query_step, mask.key_step}, count, keys, scores);
    if (of.desc.causal) kernel.hide_later(first, keys, scores);
    float sum[kPair];
    kernel.exponentiate(scores, keys, sum);
    kernel.product(scores, keys, of.v.at(b, kv_head, 0), 1, of.v.pitch(), of.value_size, work.outputs.data());
    for (float& n : sum) n = n == 0.0f && (of.desc.hidden_is_zero || !of.keys) ? 0.0f : 1.0f / n;
    kernel.transpose_back(work.outputs.data(), sum, count, of.value_size, of.out(b, head, first), of.out_pitch());
}

} // namespace

void attention_f32(const AttentionProblem& of, const Attention& kernel, const hc_exec* exec) {
    parallel(exec, product(of.batch, of.heads, of.tiles), tile_ns(of), [&](size_t begin, size_t end) {
        Workspace work(of);
        for (size_t unit = begin; unit < end; ++unit) {
            const size_t row = unit / of.tiles;
            attend(of, kernel, row / of.heads, row % of.heads, unit % of.tiles * kPair, work);
        }
    });
}

} // namespace hc
