// hc_wide: sketches of the rows of a wide layer, and the products with those that are near.
#include <math.h>
#include <string.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <vector>

#include "hashcompile.h"
#include "kernels/table.h"
#include "ops/parallel.h"
#include "ops/scratch.h"
#include "ops/weight.h"

namespace hc {
namespace {

constexpr int64_t kMostBits = 4096;
constexpr int64_t kMostCodeBits = 8;
constexpr size_t kRowsAtOnce = 512; // of the weight: their distances lie on the stack
constexpr double kProjectNs = 0.05; // for one product of a plane
constexpr double kSketchNs = 0.01;  // for one byte of a row's sketch
constexpr double kRowShare = 0.05;  // how many rows are thought to be near
constexpr double kProductNs = 0.1;  // for one product of such a row

void check_length(const char* what, const void* values, size_t got, size_t wanted) {
    if (got != wanted) fail(HC_INVALID_ARGUMENT, "%s has %zu values; wanted %zu", what, got, wanted);
    if (wanted && !values) fail(HC_INVALID_ARGUMENT, "%s is null", what);
}

std::vector<float> copied(const float* values, size_t count) {
    std::vector<float> copy(count);
    if (count) memcpy(copy.data(), values, product(count, sizeof(float))); // a file may hold them at any address
    return copy;
}

} // namespace
} // namespace hc

using namespace hc;

struct hc_wide {
    explicit hc_wide(const hc_wide_desc& desc);

    size_t rows, columns, bits;
    const float* weight;
    const uint8_t *sketches, *limit;
    std::vector<float> own_weight; // where the caller's is not aligned
    std::vector<float> bias, planes, start;
    std::vector<float> values, scale; // of codes: those of every byte
    WideCodes codes{};                // bits: 0 for fp32 rows
    Wide kernel;

    size_t bytes() const { return bits / 8; }
    void open_codes(const hc_wide_desc& desc);

    // The sketch (bytes) of x.
    void sketch(const float* x, uint8_t* to) const;

    // Outputs [first, first + count) of x, count <= kRowsAtOnce; how many of them are computed. `all`: every one.
    size_t outputs(const float* x, const uint8_t* sketch, size_t first, size_t count, bool all, float* y) const;
};

hc_wide::hc_wide(const hc_wide_desc& desc) {
    if (desc.rows < 0 || desc.columns < 0 || desc.rows > UINT32_MAX)
        fail(HC_INVALID_ARGUMENT, "a wide layer of %lld x %lld", static_cast<long long>(desc.rows),
             static_cast<long long>(desc.columns));
    if (desc.bits < 8 || desc.bits > kMostBits || desc.bits % 8)
        fail(HC_INVALID_ARGUMENT, "bits is %lld; wanted a multiple of 8 up to %lld", static_cast<long long>(desc.bits),
             static_cast<long long>(kMostBits));
    rows = static_cast<size_t>(desc.rows);
    columns = static_cast<size_t>(desc.columns);
    bits = static_cast<size_t>(desc.bits);
    kernel = select_wide(cap_of(desc.isa));
    open_codes(desc);
    check_length("weight", desc.weight, desc.weight_len, codes.bits ? 0 : product(rows, columns));
    if (desc.bias) check_length("bias", desc.bias, desc.bias_len, rows);
    check_length("planes", desc.planes, desc.planes_len, product(columns, bits));
    check_length("start", desc.start, desc.start_len, bits);
    check_length("sketches", desc.sketches, desc.sketches_len, product(bytes(), rows));
    check_length("limit", desc.limit, desc.limit_len, rows);
    weight = desc.weight;
    if (reinterpret_cast<uintptr_t>(weight) % alignof(float)) {
        own_weight = copied(desc.weight, desc.weight_len);
        weight = own_weight.data();
    }
    bias = desc.bias ? copied(desc.bias, rows) : std::vector<float>(rows);
    planes = copied(desc.planes, desc.planes_len);
    start = copied(desc.start, bits);
    sketches = desc.sketches;
    limit = desc.limit;
}

void hc_wide::open_codes(const hc_wide_desc& desc) {
    const int64_t width = desc.code_bits;
    if (width < 0 || width > kMostCodeBits || width & (width - 1))
        fail(HC_INVALID_ARGUMENT, "code_bits is %lld; wanted 1, 2, 4 or 8, or 0 for fp32",
             static_cast<long long>(width));
    const size_t per_byte = width ? 8 / static_cast<size_t>(width) : 1, entries = width ? size_t{1} << width : 0;
    check_length("codes", desc.codes, desc.codes_len, width ? product(rows, ceil_div(columns, per_byte)) : 0);
    check_length("table", desc.table, desc.table_len, entries);
    check_length("scale", desc.scale, desc.scale_len, width ? rows : 0);
    if (!width) return;
    const std::vector<float> table = copied(desc.table, entries);
    scale = copied(desc.scale, rows);
    for (size_t byte = 0; byte < 256; ++byte)
        for (size_t i = 0; i < per_byte; ++i)
            values.push_back(table[byte >> i * static_cast<size_t>(width) & (entries - 1)]);
    codes = {desc.codes, static_cast<size_t>(width), values.data(), scale.data()};
}

void hc_wide::sketch(const float* x, uint8_t* to) const {
    float side[kMostBits];
    kernel.project(x, columns, planes.data(), start.data(), bits, side);
    memset(to, 0, bytes());
    for (size_t j = 0; j < bits; ++j) to[j / 8] |= static_cast<uint8_t>((side[j] >= 0) << j % 8);
}

size_t hc_wide::outputs(const float* x, const uint8_t* sketch, size_t first, size_t count, bool all, float* y) const {
    alignas(uint64_t) uint8_t near[kRowsAtOnce] = {};
    if (all)
        memset(near, 1, count);
    else
        kernel.near(sketches + first, rows, sketch, bytes(), limit + first, count, near);
    std::fill_n(y + first, count, -INFINITY);
    uint32_t chosen[kRowsAtOnce];
    size_t found = 0;
    for (size_t n = 0; n < count; n += sizeof(uint64_t)) {
        uint64_t some;
        memcpy(&some, near + n, sizeof some);
        if (!some) continue; // most are far
        for (size_t i = n; i < n + sizeof some; ++i) {
            chosen[found] = static_cast<uint32_t>(first + i);
            found += near[i];
        }
    }
    if (codes.bits)
        kernel.coded_products(x, columns, codes, bias.data(), chosen, found, y);
    else
        kernel.products(x, columns, weight, bias.data(), chosen, found, y);
    return found;
}

namespace {

void wide_linear(const hc_wide& wide, const float* x, size_t m, float* y, const hc_exec* exec) {
    const size_t rows = wide.rows, columns = wide.columns, runs = ceil_div(rows, kRowsAtOnce);
    Scratch<uint8_t> sketches(product(m, wide.bytes()));
    std::vector<std::atomic<size_t>> found(m);
    parallel(exec, m, static_cast<double>(wide.planes.size()) * kProjectNs, [&](size_t begin, size_t end) {
        for (size_t i = begin; i < end; ++i) wide.sketch(x + i * columns, sketches.data() + i * wide.bytes());
    });
    const auto outputs = [&](size_t i, size_t run, bool all) {
        const size_t first = run * kRowsAtOnce;
        return wide.outputs(x + i * columns, sketches.data() + i * wide.bytes(), first, smaller(rows - first, kRowsAtOnce),
                            all, y + i * rows);
    };
    const double row_ns = static_cast<double>(wide.bytes()) * kSketchNs +
                          static_cast<double>(columns) * kRowShare * kProductNs;
    parallel(exec, product(m, runs), row_ns * kRowsAtOnce, [&](size_t begin, size_t end) {
        for (size_t unit = begin; unit < end; ++unit) found[unit % m] += outputs(unit % m, unit / m, false);
    });
    for (size_t i = 0; i < m; ++i)
        if (!found[i])
            parallel(exec, runs, static_cast<double>(columns) * kProductNs * kRowsAtOnce,
                     [&](size_t begin, size_t end) {
                         for (size_t run = begin; run < end; ++run) outputs(i, run, true);
                     });
}

} // namespace

extern "C" hc_code hc_wide_open(const hc_wide_desc* desc, hc_wide** out, hc_error* error) {
    return guarded(error, [&] {
        if (!out) fail(HC_INVALID_ARGUMENT, "out is null");
        *out = nullptr;
        if (!desc || desc->size != sizeof(hc_wide_desc))
            fail(HC_INVALID_ARGUMENT, "desc is null or of another version");
        *out = std::make_unique<hc_wide>(*desc).release();
    });
}

extern "C" void hc_wide_close(hc_wide* wide) { delete wide; }

extern "C" hc_code hc_wide_linear(const hc_wide* wide, const float* x, size_t m, float* y, const hc_exec* exec,
                                  hc_error* error) {
    return guarded(error, [&] {
        if (!wide) fail(HC_INVALID_ARGUMENT, "wide is null");
        const size_t in = product(m, wide->columns, sizeof(float));
        const size_t out = product(m, wide->rows, sizeof(float));
        if ((in && !x) || (out && !y)) fail(HC_INVALID_ARGUMENT, "x or y is null");
        if (out) wide_linear(*wide, x, m, y, exec);
    });
}
