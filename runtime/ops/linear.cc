// hc_linear: units of work are a tile pair times a run of rows.
#include "layout.h"
#include "ops/multiply.h"
#include "ops/parallel.h"
#include "ops/quantize.h"
#include "ops/scratch.h"

namespace hc {
namespace {

constexpr double kQuantizeNs = 0.1; // for one activation

// multiply(pair, first row, rows, target) for every unit.
template <class Multiply>
void each_unit(const hc_weight& weight, size_t m, float* y, const hc_exec* exec, const Multiply& multiply) {
    const size_t runs = ceil_div(m, kRowsAtOnce);
    parallel(exec, product(weight.pairs, runs), weight.pair_ns(m < kRowsAtOnce ? m : kRowsAtOnce),
             [&](size_t begin, size_t end) {
                 for (size_t unit = begin; unit < end; ++unit) {
                     const size_t pair = unit / runs, first = unit % runs * kRowsAtOnce;
                     const Target to{y + first * weight.rows + pair * kPair, weight.rows, false};
                     multiply(pair, first, m - first < kRowsAtOnce ? m - first : kRowsAtOnce, to);
                 }
             });
}

void linear_f32(const hc_weight& weight, const float* x, size_t m, float* y, const hc_exec* exec) {
    const Rows<float> rows{x, weight.columns, kNoOffset, 1, weight.columns};
    each_unit(weight, m, y, exec, [&](size_t pair, size_t first, size_t count, const Target& to) {
        multiply_f32(weight, pair, rows.from(first), count, to);
    });
}

void linear_i8(const hc_weight& weight, const float* x, size_t m, float* y, const hc_exec* exec) {
    const size_t pitch = quantized_pitch(weight), chunks = chunks_of(weight);
    Scratch<int8_t> q(product(m, pitch));
    Scratch<int32_t> sum(product(m, chunks));
    Scratch<float> scale(m);
    parallel(exec, m, static_cast<double>(weight.columns) * kQuantizeNs, [&](size_t begin, size_t end) {
        for (size_t row = begin; row < end; ++row)
            scale[row] = quantize_row(weight, x + row * weight.columns, &q[row * pitch], pitch, &sum[row * chunks]);
    });
    const Rows<int8_t> rows{q.data(), pitch, kNoOffset, 1, weight.blocks * weight.period};
    each_unit(weight, m, y, exec, [&](size_t pair, size_t first, size_t count, const Target& to) {
        multiply_i8(weight, pair, {rows.from(first), &sum[first * chunks], &scale[first]}, count, to);
    });
}

} // namespace
} // namespace hc

extern "C" hc_code hc_linear(const hc_weight* weight, const float* x, size_t m, float* y, const hc_exec* exec,
                             hc_error* error) {
    return hc::guarded(error, [&] {
        if (!weight) hc::fail(HC_INVALID_ARGUMENT, "weight is null");
        const size_t in = hc::product(m, weight->columns, sizeof(float));
        const size_t out = hc::product(m, weight->rows, sizeof(float));
        if ((in && !x) || (out && !y)) hc::fail(HC_INVALID_ARGUMENT, "x or y is null");
        if (!out) return;
        (weight->int8 ? hc::linear_i8 : hc::linear_f32)(*weight, x, m, y, exec);
    });
}
