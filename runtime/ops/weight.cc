#include "ops/weight.h"

#include <math.h>
#include <string.h>

#include <memory>

#include "bf16.h"
#include "isa.h"
#include "layout.h"
#include "ops/decode.h"
#include "ops/error.h"
#include "ops/sizes.h"

namespace hc {
namespace {

constexpr int64_t kMostColumns = INT32_MAX / 127; // the sum of a row's 8-bit centroids is an int32
constexpr uint32_t kDenseBits = 32;

struct Form {
    size_t period, block_bytes;
};

Form form_of(uint32_t bits) {
    if (bits < 1 || (bits > 8 && bits != kDenseBits))
        fail(HC_INVALID_ARGUMENT, "bits is %u; an index has 1 to 8, a value 32", bits);
    const size_t period = 32 / (bits & -bits);
    return {period, period * bits / 32 * kPairLine};
}

size_t codes_bytes(const Form& form, size_t rows, size_t columns) {
    return product(ceil_div(rows, kPair), ceil_div(columns, form.period), form.block_bytes);
}

void check_length(const char* what, size_t got, size_t wanted) {
    if (got != wanted) fail(HC_INVALID_ARGUMENT, "%s has %zu values; wanted %zu", what, got, wanted);
}

// A file may hold floats at any address.
float float_at(const float* values, size_t i) {
    float value;
    memcpy(&value, reinterpret_cast<const char*>(values) + i * sizeof value, sizeof value);
    return value;
}

void check_values(const char* what, const float* values, size_t count) {
    if (count && !values) fail(HC_INVALID_ARGUMENT, "%s is null", what);
    for (size_t i = 0; i < count; ++i)
        if (!isfinite(float_at(values, i))) fail(HC_INVALID_ARGUMENT, "%s[%zu] is not finite", what, i);
}

// Whether every code, as a signed byte, is its own centroid in 8 bits. The tables end at -127, so -128 must not occur.
bool codes_are_weights(const hc_weight& weight, size_t codes_bytes) {
    if (weight.bits != 8) return false;
    for (size_t i = 0; i < weight.i8_tables.size(); ++i)
        if (i % 256 != 128 && weight.i8_tables[i] != static_cast<int8_t>(i % 256)) return false;
    return !codes_bytes || !memchr(weight.codes, 128, codes_bytes);
}

// The sums over K of the 8-bit centroids of every row: the kernel itself, on activations of one.
std::vector<int32_t> sums_of_rows(const hc_weight& weight) {
    std::vector<int32_t> sums(weight.pairs * kPair);
    if (!weight.columns) return sums;
    std::vector<uint8_t> ones(product(weight.blocks, weight.period)); // padding columns count nothing
    memset(ones.data(), 1, weight.columns);
    const uint8_t* const q = ones.data();
    const size_t start = 0;
    for (size_t pair = 0; pair < weight.pairs; ++pair) {
        CodebookI8Call call = weight.i8_call(pair);
        call.q = &q;
        call.segment = &start;
        call.segments = 1;
        call.blocks = weight.blocks;
        call.sum = &sums[pair * kPair];
        call.rows = 1;
        weight.kernels.codebook_i8.multiply(call);
    }
    return sums;
}

// The centroids of a weight with one row a group, decoded: a few bytes a channel, and no kernel could gain by looking them
// up. `Quad` neighbouring taps of a channel lie side by side.
template <size_t Quad, class T, class Table>
std::vector<T> depthwise_taps(const hc_weight& weight, const Table& table_of) {
    const size_t quads = ceil_div(weight.columns, Quad);
    std::vector<T> taps(product(weight.pairs, quads, kPair * Quad));
    std::vector<uint8_t> indices(weight.columns);
    for (size_t n = 0; n < weight.rows; ++n) {
        decode_indices(weight, n, indices.data());
        const T* table = table_of(n / kPair, n % kPair / kTile);
        for (size_t k = 0; k < weight.columns; ++k)
            taps[((n / kPair * quads + k / Quad) * kPair + n % kPair) * Quad + k % Quad] = table[indices[k]];
    }
    return taps;
}

// One table in 8 bits; returns its scale.
float quantize_table(const float* centroids, size_t count, int8_t* table) {
    float largest = 0;
    for (size_t i = 0; i < count; ++i) largest = fmaxf(largest, fabsf(centroids[i]));
    const float scale = largest / 127.0f;
    for (size_t i = 0; i < count; ++i) {
        const float t = scale > 0 ? nearbyintf(centroids[i] / scale) : 0.0f;
        table[i] = static_cast<int8_t>(fminf(fmaxf(t, -127.0f), 127.0f));
    }
    return scale;
}

template <class T>
void repeat(T* table, size_t count, size_t stride) {
    for (size_t i = count; i < stride; ++i) table[i] = table[i - count];
}

} // namespace

hc_isa cap_of(hc_isa wanted) {
    if (wanted < HC_ISA_AUTO || wanted >= HC_ISA_END) fail(HC_INVALID_ARGUMENT, "isa is %d: unknown", wanted);
    const hc_isa cap = cap_of_environment();
    if (cap == HC_ISA_END)
        fail(HC_INVALID_ARGUMENT, "environment variable HC_ISA: unknown; wanted one of %s", isa_names());
    return wanted == HC_ISA_AUTO ? cap : wanted;
}

} // namespace hc

using namespace hc;

hc_weight::hc_weight(const hc_weight_desc& desc) {
    const Form form = form_of(desc.bits);
    if (desc.compute > HC_BF16)
        fail(HC_INVALID_ARGUMENT, "compute is %u; 0 is float, 1 is int8, 2 is bf16", desc.compute);
    if (desc.rows < 0 || desc.columns < 0) fail(HC_INVALID_ARGUMENT, "a weight of negative size");
    if (desc.group_rows < 0 || desc.group_rows % kTile)
        fail(HC_INVALID_ARGUMENT, "group_rows is %lld; wanted 0 or a multiple of 16",
             static_cast<long long>(desc.group_rows));
    if (desc.compute == HC_INT8 && desc.columns > kMostColumns)
        fail(HC_INVALID_ARGUMENT, "K is %lld; HC_INT8 takes up to %lld", static_cast<long long>(desc.columns),
             static_cast<long long>(kMostColumns));
    if (desc.groups < 1 || desc.rows % desc.groups)
        fail(HC_INVALID_ARGUMENT, "%lld groups do not divide %lld rows", static_cast<long long>(desc.groups),
             static_cast<long long>(desc.rows));
    bits = static_cast<int>(desc.bits);
    int8 = desc.compute == HC_INT8;
    direct = false;
    dense = desc.bits == kDenseBits;
    if (dense && (int8 || desc.group_rows))
        fail(HC_INVALID_ARGUMENT, "a weight of fp32 values is HC_FLOAT or HC_BF16, without tables");
    rows = static_cast<size_t>(desc.rows);
    columns = static_cast<size_t>(desc.columns);
    group_rows = static_cast<size_t>(desc.group_rows);
    groups = static_cast<size_t>(desc.groups);
    period = form.period;
    block_bytes = form.block_bytes;
    blocks = ceil_div(columns, period);
    pairs = ceil_div(rows, kPair);
    codes = desc.codes;
    kernels = select(dense ? 0 : bits, cap_of(desc.isa));

    const size_t wanted = codes_bytes(form, rows, columns);
    if (desc.codes_bytes != wanted)
        fail(HC_INVALID_ARGUMENT, "codes have %zu bytes; %d bits, %zu x %zu need %zu", desc.codes_bytes, bits, rows,
             columns, wanted);
    if (wanted && !codes) fail(HC_INVALID_ARGUMENT, "codes is null");
    if (dense && reinterpret_cast<uintptr_t>(codes) % alignof(float))
        fail(HC_INVALID_ARGUMENT, "codes that are fp32 values are not aligned");
    const size_t count = dense ? 0 : size_t{1} << bits;
    const size_t tables = group_rows ? ceil_div(rows, group_rows) : 1;
    check_length("codebook", desc.codebook_len, product(tables, count));
    check_length("scale", desc.scale_len, rows);
    if (desc.bias) check_length("bias", desc.bias_len, rows);
    if (desc.bias) check_values("bias", desc.bias, desc.bias_len);
    check_values("codebook", desc.codebook, desc.codebook_len);
    check_values("scale", desc.scale, desc.scale_len);

    f32_stride = bf16_stride = i8_stride = 0;
    scale.assign(pairs * kPair, 0.0f);
    bias.assign(pairs * kPair, 0.0f);
    for (size_t n = 0; n < rows; ++n) scale[n] = float_at(desc.scale, n);
    for (size_t n = 0; desc.bias && n < rows; ++n) bias[n] = float_at(desc.bias, n);

    if (dense) return;
    f32_stride = count > kTableF32 ? count : kTableF32;
    i8_stride = int8 ? (count > kTableI8 ? count : kTableI8) : 0;
    const bool bf16 = desc.compute == HC_BF16 && kernels.codebook_bf16;
    bf16_stride = bf16 ? (count > kTableBf16 ? count : kTableBf16) : 0;
    f32_tables.resize(product(tables, f32_stride));
    bf16_tables.resize(product(tables, bf16_stride));
    i8_tables.resize(product(tables, i8_stride));
    i8_scale.resize(tables, 0.0f);
    for (size_t g = 0; g < tables; ++g) {
        float* table = &f32_tables[g * f32_stride];
        for (size_t i = 0; i < count; ++i) table[i] = float_at(desc.codebook, g * count + i);
        repeat(table, count, f32_stride);
        if (bf16) {
            for (size_t i = 0; i < count; ++i) bf16_tables[g * bf16_stride + i] = bf16_of(table[i]);
            repeat(&bf16_tables[g * bf16_stride], count, bf16_stride);
        }
        if (!int8) continue;
        i8_scale[g] = quantize_table(table, count, &i8_tables[g * i8_stride]);
        repeat(&i8_tables[g * i8_stride], count, i8_stride);
    }
    if (!int8 && depthwise())
        f32_taps = depthwise_taps<1, float>(*this, [&](size_t pair, size_t tile) { return f32_table(pair, static_cast<int>(tile)); });
    if (!int8) return;
    direct = codes_are_weights(*this, wanted);
    row_sums = sums_of_rows(*this);
    if (depthwise())
        taps = depthwise_taps<4, int8_t>(*this, [&](size_t pair, size_t tile) { return i8_table(pair, static_cast<int>(tile)); });
}

size_t hc_weight::table_of_tile(size_t pair, int tile) const {
    const size_t row = pair * kPair + tile * kTile;
    return table_of(row < rows ? row : rows - 1); // a tile of padding borrows the last table
}

int hc_weight::columns_of(size_t pair) const {
    const size_t left = rows - pair * kPair;
    return left < kPair ? static_cast<int>(left) : kPair;
}

Scaling hc_weight::scaling_of(size_t pair, int32_t zero) const {
    Scaling scaling{};
    for (int tile = 0; tile < 2; ++tile) scaling.table_scale[tile] = int8 ? i8_scale[table_of_tile(pair, tile)] : 1.0f;
    scaling.scale = &scale[pair * kPair];
    scaling.bias = &bias[pair * kPair];
    if (int8 && zero) // for K above kSumColumns the product may not fit; such rows take it out themselves
        for (int n = 0; n < kPair; ++n)
            scaling.offset[n] = columns <= kSumColumns ? zero * row_sums[pair * kPair + static_cast<size_t>(n)] : 0;
    return scaling;
}

CodebookI8Call hc_weight::i8_call(size_t pair) const {
    CodebookI8Call call{};
    call.codes = pair_codes(pair);
    call.table[0] = i8_table(pair, 0);
    call.table[1] = i8_table(pair, 1);
    call.tiles = columns_of(pair) > kTile ? 2 : 1;
    return call;
}

double hc_weight::pair_ns(size_t m) const {
    const double weights = static_cast<double>(kPair * columns);
    const int compute = int8 ? HC_INT8 : bf16_tables.empty() ? HC_FLOAT : HC_BF16;
    return weights / kernels.rate_few[compute] + weights * static_cast<double>(m) / kernels.rate_many[compute] + 20;
}

extern "C" size_t hc_codes_bytes(uint32_t bits, int64_t rows, int64_t columns) {
    size_t bytes = 0;
    guarded(nullptr, [&] {
        if (rows < 0 || columns < 0) return;
        bytes = codes_bytes(form_of(bits), static_cast<size_t>(rows), static_cast<size_t>(columns));
    });
    return bytes;
}

extern "C" hc_code hc_weight_open(const hc_weight_desc* desc, hc_weight** out, hc_error* error) {
    return guarded(error, [&] {
        if (!out) fail(HC_INVALID_ARGUMENT, "out is null");
        *out = nullptr;
        if (!desc || desc->size != sizeof(hc_weight_desc))
            fail(HC_INVALID_ARGUMENT, "desc is null or of another version");
        *out = std::make_unique<hc_weight>(*desc).release();
    });
}

extern "C" void hc_weight_close(hc_weight* weight) { delete weight; }

extern "C" uint32_t hc_abi_version(void) { return HC_ABI_VERSION; }
