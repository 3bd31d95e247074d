// hc_feed_forward: with many rows a unit of work is a run of them through both layers, so that what lies between the two
// stays in the L2 cache. Few rows can't be shared out: then one layer follows the other, each shared out by columns.
#include "layout.h"
#include "ops/linear.h"
#include "ops/parallel.h"
#include "ops/quantized_rows.h"

namespace hc {
namespace {

constexpr size_t kHiddenBytes = 512 * 1024; // of a run: half of a common L2 cache
constexpr size_t kFewestRows = 16;          // of a run: with fewer, the codes are read too often

struct FeedForward {
    const hc_weight &up, &down;
    Activation between, after;
    FloatTarget to;
};

// Rows of a run: all tasks have one, the sums of a pair fit the stack, and the hidden values the cache.
size_t run_rows(const FeedForward& of, size_t m) {
    const size_t fitting = kHiddenBytes / product(of.up.rows, sizeof(float)) / kRowBlock * kRowBlock;
    return smaller(round_up(ceil_div(m, kMostTasks), kRowBlock), smaller(kRowsAtOnce, fitting));
}

void layer(const hc_weight& weight, QuantizedRows& rows, const float* x, size_t m, size_t first,
           const Activation& activation, const FloatTarget& to) {
    for (size_t i = 0; i < m; ++i) rows.set(i, x + i * weight.columns);
    for (size_t pair = 0; pair < weight.pairs; ++pair)
        multiply_and_finish(weight, pair, rows.bytes(0), m, rows.quant(0), first, activation, to);
}

void in_runs(const FeedForward& of, const float* x, size_t m, size_t rows, const hc_exec* exec) {
    const double run_ns = static_cast<double>(of.up.pairs) * of.up.pair_ns(rows) +
                          static_cast<double>(of.down.pairs) * of.down.pair_ns(rows);
    parallel(exec, ceil_div(m, rows), run_ns, [&](size_t begin, size_t end) {
        QuantizedRows in(of.up, rows), between(of.down, rows);
        Scratch<float> hidden(product(rows, of.up.rows));
        const FloatTarget to_hidden{hidden.data(), of.up.rows, false, nullptr, {}};
        for (size_t run = begin; run < end; ++run) {
            const size_t first = run * rows, count = smaller(m - first, rows);
            layer(of.up, in, x + first * of.up.columns, count, 0, of.between, to_hidden);
            layer(of.down, between, hidden.data(), count, first, of.after, of.to);
        }
    });
}

void feed_forward(const FeedForward& of, const float* x, size_t m, const hc_exec* exec) {
    if (of.up.int8 && of.down.int8 && of.up.rows) {
        const size_t rows = run_rows(of, m);
        if (rows >= kFewestRows) return in_runs(of, x, m, rows, exec);
    }
    Scratch<float> hidden(product(m, of.up.rows));
    linear(of.up, x, m, of.between, {hidden.data(), of.up.rows, false, nullptr, {}}, exec);
    linear(of.down, hidden.data(), m, of.after, of.to, exec);
}

} // namespace
} // namespace hc

extern "C" hc_code hc_feed_forward(const hc_weight* up, const hc_weight* down, const float* x, size_t m, float* y,
                                   const hc_epilogue* between, const hc_epilogue* after, const hc_exec* exec,
                                   hc_error* error) {
    using namespace hc;
    return guarded(error, [&] {
        check_layer(up);
        check_layer(down);
        if (down->columns != up->rows)
            fail(HC_INVALID_ARGUMENT, "the second layer reads %zu values; the first makes %zu", down->columns,
                 up->rows);
        const size_t in = product(m, up->columns, sizeof(float)), out = product(m, down->rows, sizeof(float));
        if ((in && !x) || (out && !y)) fail(HC_INVALID_ARGUMENT, "x or y is null");
        if (between && between->residual) fail(HC_INVALID_ARGUMENT, "a residual between the layers");
        const FeedForward of{*up, *down, activation_of(between), activation_of(after),
                             {y, down->rows, false, after ? after->residual : nullptr, {}}};
        if (out) feed_forward(of, x, m, exec);
    });
}
