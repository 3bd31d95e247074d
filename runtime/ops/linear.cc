// hc_linear: units of work are a tile pair times a run of rows.
#include "ops/linear.h"

#include "layout.h"
#include "ops/multiply.h"
#include "ops/parallel.h"
#include "ops/quantized_rows.h"

namespace hc {
namespace {

constexpr double kQuantizeNs = 0.1; // for one activation

// multiply(pair, first row, rows) for every unit.
template <class Multiply>
void each_unit(const hc_weight& weight, size_t m, const hc_exec* exec, const Multiply& multiply) {
    const size_t runs = ceil_div(m, kRowsAtOnce);
    parallel(exec, product(weight.pairs, runs), weight.pair_ns(smaller(m, kRowsAtOnce)),
             [&](size_t begin, size_t end) {
                 for (size_t unit = begin; unit < end; ++unit) {
                     const size_t first = unit % runs * kRowsAtOnce;
                     multiply(unit / runs, first, smaller(m - first, kRowsAtOnce));
                 }
             });
}

void linear_f32(const hc_weight& weight, const float* x, size_t m, const Activation& activation,
                const FloatTarget& to, const hc_exec* exec) {
    const FloatRows rows{x, weight.columns};
    each_unit(weight, m, exec, [&](size_t pair, size_t first, size_t count) {
        alignas(64) float sum[kRowsAtOnce * kPair];
        multiply_f32(weight, pair, rows.from(first), count, sum);
        finish(weight, pair, sum, first, count, {}, activation, to);
    });
}

void linear_i8(const hc_weight& weight, const float* x, size_t m, const Activation& activation, const FloatTarget& to,
               const hc_exec* exec) {
    QuantizedRows rows(weight, m);
    parallel(exec, m, static_cast<double>(weight.columns) * kQuantizeNs, [&](size_t begin, size_t end) {
        for (size_t i = begin; i < end; ++i) rows.set(i, x + i * weight.columns);
    });
    each_unit(weight, m, exec, [&](size_t pair, size_t first, size_t count) {
        multiply_and_finish(weight, pair, rows.bytes(first), count, rows.quant(first), first, activation, to);
    });
}

} // namespace

void check_layer(const hc_weight* weight) {
    if (!weight) fail(HC_INVALID_ARGUMENT, "weight is null");
    if (weight->groups != 1) fail(HC_INVALID_ARGUMENT, "a weight of %zu groups in a linear layer", weight->groups);
}

void linear(const hc_weight& weight, const float* x, size_t m, const Activation& activation, const FloatTarget& to,
            const hc_exec* exec) {
    (weight.int8 ? linear_i8 : linear_f32)(weight, x, m, activation, to, exec);
}

} // namespace hc

extern "C" hc_code hc_linear(const hc_weight* weight, const float* x, size_t m, float* y, const hc_epilogue* epilogue,
                             const hc_exec* exec, hc_error* error) {
    using namespace hc;
    return guarded(error, [&] {
        check_layer(weight);
        const size_t in = product(m, weight->columns, sizeof(float));
        const size_t out = product(m, weight->rows, sizeof(float));
        if ((in && !x) || (out && !y)) fail(HC_INVALID_ARGUMENT, "x or y is null");
        const Activation activation = activation_of(epilogue);
        if (!out) return;
        const FloatTarget to{y, weight->rows, false, epilogue ? epilogue->residual : nullptr, {}};
        linear(*weight, x, m, activation, to, exec);
    });
}
