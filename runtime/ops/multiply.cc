#include "ops/multiply.h"

#include <string.h>

#include "layout.h"

namespace hc {
namespace {

// With 32 rows 16 KiB, half of a small L1 cache, in fp32 or in bytes.
constexpr size_t kPanelColumns = 128, kBytePanelColumns = 512;

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

Int8Call int8_call(const ByteRows& x, size_t m, int tiles, int32_t* sum) {
    Int8Call call{};
    call.q = x.row;
    call.sum = sum;
    call.rows = static_cast<int>(m);
    call.tiles = tiles;
    return call;
}

// Codes that are the weights.
void multiply_direct(const hc_weight& weight, const CodebookI8Call& codes, const ByteRows& x, size_t m, int32_t* sum) {
    Int8Call call = int8_call(x, m, codes.tiles, sum);
    call.weights = reinterpret_cast<const int8_t*>(codes.codes);
    call.groups = x.length / 4;
    for (size_t s = 0; s < x.segments; ++s, call.add = true) {
        call.k = x.segment[s];
        weight.kernels.int8(call);
        call.weights += call.groups * kPairLine;
    }
}

// Codes decoded once for all rows, a panel at a time.
void multiply_panels(const hc_weight& weight, CodebookI8Call codes, const ByteRows& x, size_t m, int32_t* sum) {
    alignas(64) int8_t panel[kBytePanelColumns * kPair];
    Int8Call call = int8_call(x, m, codes.tiles, sum);
    call.weights = panel;
    for (size_t s = 0; s < x.segments; ++s)
        for (size_t k = 0; k < x.length; k += kBytePanelColumns, call.add = true) {
            const size_t count = smaller(x.length - k, kBytePanelColumns), blocks = count / weight.period;
            weight.kernels.codebook_i8.decode(codes.codes, blocks, codes.table, panel);
            codes.codes += blocks * weight.block_bytes;
            call.k = x.segment[s] + k;
            call.groups = count / 4;
            weight.kernels.int8(call);
        }
}

void ask_for(const hc_weight&, size_t, size_t, size_t, const ByteTarget&) {} // pixels lie side by side

// All but the rows.
CodebookI8Call codes_call(const hc_weight& weight, size_t pair, const ByteRows& x) {
    CodebookI8Call call = weight.i8_call(pair);
    call.segment = x.segment;
    call.segments = x.segments;
    call.blocks = x.length / weight.period;
    return call;
}

bool decodes_once(const hc_weight& weight, const ByteRows& x, size_t m) {
    return x.length && m > static_cast<size_t>(weight.kernels.codebook_i8.most_rows);
}

} // namespace

namespace {

// Panels that lie in memory: a run of them at a time, which stays in the L1 cache from row block to row block.
void multiply_dense(const hc_weight& weight, size_t pair, const FloatRows& x, size_t m, float* sum) {
    const float* panel = weight.panel(pair);
    for (size_t k = 0; k < weight.columns; k += kPanelColumns)
        row_blocks(m, [&](size_t row, int rows) {
            weight.kernels.panel_f32(panel + k * kPair, smaller(weight.columns - k, kPanelColumns), x.from(row).data + k,
                                     x.pitch, rows, sum + row * kPair);
        });
}

} // namespace

void ask_for(const hc_weight& weight, size_t pair, size_t first, size_t m, const FloatTarget& to) {
    if (to.transposed) return;
    const size_t columns = static_cast<size_t>(weight.columns_of(pair));
    for (size_t row = first; row < first + m; ++row)
        for (size_t n = 0; n < columns; n += kLine / sizeof(float)) {
            const size_t at = row * to.pitch + pair * kPair + n;
            __builtin_prefetch(to.y + at, 1);
            if (to.residual) __builtin_prefetch(to.residual + at);
        }
}

void multiply_f32(const hc_weight& weight, size_t pair, const FloatRows& x, size_t m, float* sum) {
    memset(sum, 0, m * kPair * sizeof *sum);
    if (weight.dense) return multiply_dense(weight, pair, x, m, sum);
    alignas(64) float panel[kPanelColumns * kPair];
    const Kernels& kernels = weight.kernels;
    const float* const table[2] = {weight.f32_table(pair, 0), weight.f32_table(pair, 1)};
    const uint8_t* codes = weight.pair_codes(pair);
    const size_t whole = weight.columns / weight.period; // blocks: the columns of the last one may end before it does
    size_t k = 0;
    if (!weight.bf16_tables.empty()) {
        const uint16_t* const rounded[2] = {weight.bf16_table(pair, 0), weight.bf16_table(pair, 1)};
        row_blocks(m, [&](size_t row, int rows) {
            kernels.codebook_bf16(codes, whole, rounded, x.from(row).data, x.pitch, rows, sum + row * kPair);
        });
        k = whole * weight.period;
    } else if (kernels.codebook_f32.multiply && m <= kRowBlock) {
        kernels.codebook_f32.multiply(codes, whole, table, x.data, x.pitch, static_cast<int>(m), sum);
        k = whole * weight.period;
    }
    for (; k < weight.columns; k += kPanelColumns) {
        const size_t count = smaller(weight.columns - k, kPanelColumns);
        kernels.codebook_f32.decode(codes + k / weight.period * weight.block_bytes, ceil_div(count, weight.period),
                                    table, panel);
        row_blocks(m, [&](size_t row, int rows) {
            kernels.panel_f32(panel, count, x.from(row).data + k, x.pitch, rows, sum + row * kPair);
        });
    }
}

void multiply_i8(const hc_weight& weight, size_t pair, const ByteRows& x, size_t m, int32_t* sum) {
    CodebookI8Call call = codes_call(weight, pair, x);
    if (weight.direct) return multiply_direct(weight, call, x, m, sum);
    if (decodes_once(weight, x, m)) return multiply_panels(weight, call, x, m, sum);
    row_blocks(m, [&](size_t row, int rows) {
        call.q = x.row + row;
        call.rows = rows;
        call.sum = sum + row * kPair;
        weight.kernels.codebook_i8.multiply(call);
    });
}

void multiply_wide(const hc_weight& weight, size_t pair, const ByteRows& x, size_t m, int32_t zero, float* sum) {
    const size_t chunk_blocks = kSumColumns / weight.period;
    const int32_t* row_sum = &weight.row_sums[pair * kPair];
    row_blocks(m, [&](size_t row, int rows) {
        int64_t total[kRowBlock * kPair] = {};
        int32_t part[kRowBlock * kPair];
        CodebookI8Call call = weight.i8_call(pair);
        call.q = x.row + row;
        call.rows = rows;
        call.sum = part;
        call.segments = 1;
        for (size_t block = 0; block < weight.blocks; block += chunk_blocks) {
            const size_t start = block * weight.period;
            call.segment = &start;
            call.blocks = smaller(chunk_blocks, weight.blocks - block);
            weight.kernels.codebook_i8.multiply(call);
            call.codes += call.blocks * weight.block_bytes;
            for (int i = 0; i < rows * kPair; ++i)
                if (i % kPair < call.tiles * kTile) total[i] += part[i];
        }
        for (int i = 0; i < rows * kPair; ++i)
            sum[row * kPair + i] = static_cast<float>(total[i] - int64_t{zero} * row_sum[i % kPair]);
    });
}

namespace {

// Where the kernel makes bytes of its sums itself.
bool multiply_to_levels(const hc_weight&, size_t, const ByteRows&, size_t, size_t, const FloatTarget&) { return false; }

bool multiply_to_levels(const hc_weight& weight, size_t pair, const ByteRows& x, size_t m, size_t first,
                        const ByteTarget& to) {
    const auto multiply = weight.kernels.codebook_i8.multiply_to_levels;
    if (!multiply || weight.direct || decodes_once(weight, x, m)) return false;
    if (!to.levels || !to.levels[pair].fits || weight.columns_of(pair) < kPair || m < kLeastRowsToLevels) return false;
    CodebookI8Call call = codes_call(weight, pair, x);
    LevelsCall out{&to.levels[pair], nullptr, nullptr, pair * kPair};
    row_blocks(m, [&](size_t row, int rows) {
        call.q = x.row + row;
        call.rows = rows;
        out.r = to.residual.row ? to.residual.row + first + row : nullptr;
        out.y = to.y + first + row;
        multiply(call, out);
    });
    return true;
}

} // namespace

template <class Target>
void multiply_and_finish(const hc_weight& weight, size_t pair, const ByteRows& x, size_t m, const RowQuant& quant,
                         size_t first, const Activation& activation, const Target& to) {
    ask_for(weight, pair, first, m, to);
    if (weight.columns <= kSumColumns) {
        if (multiply_to_levels(weight, pair, x, m, first, to)) return;
        alignas(64) int32_t sum[kRowsAtOnce * kPair];
        multiply_i8(weight, pair, x, m, sum);
        finish(weight, pair, sum, first, m, quant, activation, to);
    } else {
        alignas(64) float sum[kRowsAtOnce * kPair];
        multiply_wide(weight, pair, x, m, quant.zero, sum);
        finish(weight, pair, sum, first, m, quant, activation, to);
    }
}

template void multiply_and_finish(const hc_weight&, size_t, const ByteRows&, size_t, const RowQuant&, size_t,
                                  const Activation&, const FloatTarget&);
template void multiply_and_finish(const hc_weight&, size_t, const ByteRows&, size_t, const RowQuant&, size_t,
                                  const Activation&, const ByteTarget&);

} // namespace hc
