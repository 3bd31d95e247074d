// hc_embedding and hc_decode: rows of the weight, as the codes say.
#include "layout.h"
#include "ops/decode.h"
#include "ops/parallel.h"
#include "scalar_index.h"

namespace hc {
namespace {

constexpr double kDecodeNs = 1; // for one value

// entry(i) of the K indices i of row n, to `out`.
template <int Bits, class T, class Entry>
void each_index(const hc_weight& weight, size_t n, T* out, const Entry& entry) {
    using L = Layout<Bits>;
    const uint8_t* row = weight.pair_codes(n / kPair) + n % kPair / kTile * kLine + n % kTile * 4;
    size_t left = weight.columns;
    for (; left >= L::period; left -= L::period, row += L::block_bytes)
        for (int g = 0; g < L::groups; ++g) {
            const uint32_t indices = four_indices<Bits>(row, g);
            for (int kk = 0; kk < 4; ++kk) *out++ = entry(indices >> 8 * kk & 255);
        }
    for (int g = 0; left; ++g) {
        const uint32_t indices = four_indices<Bits>(row, g);
        for (int kk = 0; kk < 4 && left; ++kk, --left) *out++ = entry(indices >> 8 * kk & 255);
    }
}

// A row lies scattered, some bytes in every line of its tile.
void ask_for_row(const hc_weight& weight, size_t n) {
    const uint8_t* line = weight.pair_codes(n / kPair) + n % kPair / kTile * kLine;
    for (size_t at = 0; at < weight.pair_bytes(); at += kPairLine) __builtin_prefetch(line + at);
}

template <int Bits>
void decode(const hc_weight& weight, size_t n, float* values) {
    const float* centroids = &weight.f32_tables[weight.table_of(n) * weight.f32_stride];
    float table[1 << Bits];
    for (int i = 0; i < 1 << Bits; ++i) table[i] = centroids[i] * weight.scale[n];
    each_index<Bits>(weight, n, values, [&](uint32_t index) { return table[index]; });
}

template <int Bits>
void copy_indices(const hc_weight& weight, size_t n, uint8_t* indices) {
    each_index<Bits>(weight, n, indices, [](uint32_t index) { return static_cast<uint8_t>(index); });
}

void embedding(const hc_weight& weight, const int64_t* ids, size_t count, float* y, const hc_exec* exec) {
    const int64_t rows = static_cast<int64_t>(weight.rows);
    for (size_t i = 0; i < count; ++i)
        if (ids[i] < -rows || ids[i] >= rows)
            fail(HC_OUT_OF_RANGE, "id %lld at position %zu; the table has %lld rows: ids are in [-%lld, %lld)",
                 static_cast<long long>(ids[i]), i, static_cast<long long>(rows), static_cast<long long>(rows),
                 static_cast<long long>(rows));
    const auto row = [&](size_t i) { return static_cast<size_t>(ids[i] < 0 ? ids[i] + rows : ids[i]); };
    parallel(exec, count, static_cast<double>(weight.columns) * kDecodeNs, [&](size_t begin, size_t end) {
        for (size_t i = begin; i < end; ++i) {
            if (i + 1 < end) ask_for_row(weight, row(i + 1));
            decode_row(weight, row(i), y + i * weight.columns);
        }
    });
}

} // namespace

void decode_row(const hc_weight& weight, size_t n, float* values) {
    if (weight.dense) {
        const float* panel = weight.panel(n / kPair) + n % kPair;
        for (size_t k = 0; k < weight.columns; ++k) values[k] = panel[k * kPair] * weight.scale[n];
        return;
    }
    static constexpr void (*by_bits[8])(const hc_weight&, size_t, float*) = {
        decode<1>, decode<2>, decode<3>, decode<4>, decode<5>, decode<6>, decode<7>, decode<8>};
    by_bits[weight.bits - 1](weight, n, values);
}

void decode_indices(const hc_weight& weight, size_t n, uint8_t* indices) {
    static constexpr void (*by_bits[8])(const hc_weight&, size_t, uint8_t*) = {
        copy_indices<1>, copy_indices<2>, copy_indices<3>, copy_indices<4>,
        copy_indices<5>, copy_indices<6>, copy_indices<7>, copy_indices<8>};
    by_bits[weight.bits - 1](weight, n, indices);
}

} // namespace hc

extern "C" hc_code hc_embedding(const hc_weight* weight, const int64_t* ids, size_t count, float* y,
                                const hc_exec* exec, hc_error* error) {
    return hc::guarded(error, [&] {
        if (!weight) hc::fail(HC_INVALID_ARGUMENT, "weight is null");
        const size_t out = hc::product(count, weight->columns, sizeof(float));
        if ((count && !ids) || (out && !y)) hc::fail(HC_INVALID_ARGUMENT, "ids or y is null");
        hc::embedding(*weight, ids, count, y, exec);
    });
}

extern "C" hc_code hc_decode(const hc_weight* weight, float* dense, hc_error* error) {
    return hc::guarded(error, [&] {
        if (!weight) hc::fail(HC_INVALID_ARGUMENT, "weight is null");
        if (hc::product(weight->rows, weight->columns, sizeof(float)) && !dense)
            hc::fail(HC_INVALID_ARGUMENT, "dense is null");
        for (size_t n = 0; n < weight->rows; ++n) hc::decode_row(*weight, n, dense + n * weight->columns);
    });
}
