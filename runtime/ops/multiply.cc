#include "ops/multiply.h"

#include <string.h>

#include "layout.h"

namespace hc {
namespace {

constexpr size_t kPanelColumns = 128; // with 32 rows: 16 KiB, half of a small L1 cache

size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

// Blocks of at most kRowBlock rows, as equal as can be: 9 rows are 5 + 4, not 8 + 1.
template <class Body>
void row_blocks(size_t m, const Body& body) {
    const size_t count = ceil_div(m, kRowBlock);
    for (size_t i = 0, first = 0; i < count; ++i) {
        const size_t rows = m / count + (i < m % count);
        body(first, static_cast<int>(rows));
        first += rows;
    }
}

void store(const Rowwise& r, bool columns, const float* sum, size_t m, const Output& out) {
    (columns ? r.store_columns_f32 : r.store_rows_f32)(sum, m, out);
}

void store(const Rowwise& r, bool columns, const int32_t* sum, size_t m, const Output& out) {
    (columns ? r.store_columns_i32 : r.store_rows_i32)(sum, m, out);
}

float* at_row(const Target& to, size_t row) { return to.y + (to.transposed ? row : row * to.pitch); }

// Rows [first, first + m) of the target from their sums.
template <class Sum>
void store_to(const Target& to, const hc_weight& weight, const Sum* sum, size_t first, size_t m, Output out) {
    const size_t step = to.transposed ? kColumnBlock : m;
    out.ldy = to.pitch;
    for (size_t row = 0; row < m; row += step) {
        out.y = at_row(to, first + row);
        store(weight.kernels.rowwise, to.transposed, sum + row * kPair, smaller(step, m - row), out);
        if (out.row_scale) out.row_scale += step;
    }
}

// sum += rows times columns [k, k + count) of the panel that starts at column k, cut where the runs of x end.
void multiply_panel(const Kernels& kernels, const float* panel, const Rows<float>& x, size_t k, size_t count, size_t m,
                    float* sum) {
    while (count) {
        const size_t segment = k / x.length, offset = k % x.length, part = smaller(count, x.length - offset);
        const float* from = x.data + x.segment[segment] + offset;
        row_blocks(m, [&](size_t row, int rows) {
            kernels.panel_f32(panel, part, from + row * x.pitch, x.pitch, rows, sum + row * kPair);
        });
        panel += part * kPair;
        k += part;
        count -= part;
    }
}

// A long row: each chunk's sum is exact in int32; their total is rounded to float once.
void multiply_wide(const hc_weight& weight, CodebookI8Call call, const int32_t* q_sums, const float* scale,
                   const Target& to, size_t first) {
    int64_t total[kRowBlock * kPair] = {};
    int32_t sum[kRowBlock * kPair], q_sum[kRowBlock];
    const Output out = weight.output_of(static_cast<size_t>(call.codes - weight.codes) / weight.pair_bytes());
    const size_t chunks = chunks_of(weight), chunk_blocks = kSumColumns / weight.period;
    call.q_sum = q_sum;
    call.sum = sum;
    call.tiles = 2;
    for (size_t c = 0; c < chunks; ++c) {
        const size_t offset = c * kSumColumns;
        call.segment = &offset;
        call.blocks = smaller(chunk_blocks, weight.blocks - c * chunk_blocks);
        for (int m = 0; m < call.rows; ++m) q_sum[m] = q_sums[m * chunks + c];
        weight.kernels.codebook_i8(call);
        call.codes += call.blocks * weight.block_bytes;
        for (int i = 0; i < call.rows * kPair; ++i) total[i] += sum[i];
    }
    for (int m = 0; m < call.rows; ++m)
        for (int n = 0; n < out.columns; ++n) {
            const float both = scale[m] * out.table_scale[n / kTile];
            at_row(to, first + m)[to.transposed ? n * to.pitch : n] =
                static_cast<float>(total[m * kPair + n]) * both * out.scale[n] + out.bias[n];
        }
}

} // namespace

void multiply_f32(const hc_weight& weight, size_t pair, const Rows<float>& x, size_t m, const Target& to) {
    alignas(64) float panel[kPanelColumns * kPair];
    alignas(64) float sum[kRowsAtOnce * kPair];
    const Kernels& kernels = weight.kernels;
    const float* const table[2] = {weight.f32_table(pair, 0), weight.f32_table(pair, 1)};
    const uint8_t* codes = weight.pair_codes(pair);
    for (size_t first = 0; first < m; first += kRowsAtOnce) {
        const size_t rows = smaller(m - first, kRowsAtOnce);
        const Rows<float> from = x.from(first);
        memset(sum, 0, rows * kPair * sizeof(float));
        size_t k = 0;
        if (kernels.codebook_f32.multiply && rows <= kRowBlock && x.segments == 1) {
            const size_t whole = weight.columns / weight.period;
            kernels.codebook_f32.multiply(codes, whole, table, from.data, x.pitch, static_cast<int>(rows), sum);
            k = whole * weight.period;
        }
        for (; k < weight.columns; k += kPanelColumns) {
            const size_t count = smaller(weight.columns - k, kPanelColumns);
            kernels.codebook_f32.decode(codes + k / weight.period * weight.block_bytes, ceil_div(count, weight.period),
                                        table, panel);
            multiply_panel(kernels, panel, from, k, count, rows, sum);
        }
        store_to(to, weight, sum, first, rows, weight.output_of(pair));
    }
}

void multiply_i8(const hc_weight& weight, size_t pair, const QuantizedRows& x, size_t m, const Target& to) {
    alignas(64) int32_t sum[kRowsAtOnce * kPair];
    const size_t chunks = chunks_of(weight);
    Output out = weight.output_of(pair);
    CodebookI8Call call{};
    call.codes = weight.pair_codes(pair);
    call.table[0] = weight.i8_table(pair, 0);
    call.table[1] = weight.i8_table(pair, 1);
    call.ldq = x.rows.pitch;
    call.segment = x.rows.segment;
    call.segments = x.rows.segments;
    call.blocks = x.rows.length / weight.period;
    call.tiles = out.columns > kTile ? 2 : 1;
    for (size_t first = 0; first < m; first += kRowsAtOnce) {
        const size_t rows = smaller(m - first, kRowsAtOnce);
        row_blocks(rows, [&](size_t row, int block) {
            call.q = x.rows.from(first + row).data;
            call.q_sum = x.sum + (first + row) * chunks;
            call.rows = block;
            call.sum = sum + row * kPair;
            if (chunks == 1) return weight.kernels.codebook_i8(call);
            multiply_wide(weight, call, call.q_sum, x.scale + first + row, to, first + row);
        });
        if (chunks > 1) continue;
        out.row_scale = x.scale + first;
        store_to(to, weight, sum, first, rows, out);
    }
}

} // namespace hc
