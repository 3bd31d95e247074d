// hc_hashed: a linear layer that multiplies straight from a pool of tiles. A unit of work is 16 rows of W times a run of
// rows of x.
#include <string.h>

#include <memory>
#include <vector>

#include "hashcompile.h"
#include "kernels/layout.h"
#include "kernels/table.h"
#include "ops/parallel.h"
#include "ops/scratch.h"
#include "ops/weight.h"

namespace hc {
namespace {

constexpr size_t kTileValues = kTile * kTile;
constexpr size_t kWeightsPerValue = 4096; // at most: a small file cannot ask for a huge matrix
constexpr size_t kRowsOfX = 64;           // of a unit
constexpr double kWeightNs = 0.02;        // for one weight, read; and for one product
constexpr uint32_t kMask = 0x7FFFFFFF;

// The hash, word for word as the format fixes it (hashcompile.h).
uint32_t mix(uint32_t x) {
    x = (x ^ x >> 15) * 0x5A827999u & kMask;
    x = (x ^ x >> 13) * 0x6ED9EBA1u & kMask;
    return x ^ x >> 16;
}

// How many values there are, once all that is said of them fits.
size_t checked(const hc_hashed_desc& desc) {
    if (desc.rows < 0 || desc.columns < 0) fail(HC_INVALID_ARGUMENT, "a hashed weight of negative size");
    if (desc.seed > kMask) fail(HC_INVALID_ARGUMENT, "seed is %u; wanted less than 2^31", desc.seed);
    if (desc.reserved) fail(HC_INVALID_ARGUMENT, "reserved is %u; wanted 0", desc.reserved);
    const size_t rows = static_cast<size_t>(desc.rows), columns = static_cast<size_t>(desc.columns);
    if (!desc.values || !desc.values_len || desc.values_len % kTileValues || desc.values_len / kTileValues > kMask / 2)
        fail(HC_INVALID_ARGUMENT, "values has %zu values; wanted whole tiles of %zu", desc.values_len, kTileValues);
    const size_t most = product(kWeightsPerValue, desc.values_len);
    if (rows > most || columns > most || product(rows, columns) > most)
        fail(HC_INVALID_ARGUMENT, "%zu values for a weight of %zu x %zu", desc.values_len, rows, columns);
    return desc.values_len;
}

void check_length(const char* what, const float* values, size_t got, size_t wanted) {
    if (got != wanted) fail(HC_INVALID_ARGUMENT, "%s has %zu values; wanted %zu", what, got, wanted);
    if (wanted && !values) fail(HC_INVALID_ARGUMENT, "%s is null", what);
}

} // namespace
} // namespace hc

using namespace hc;

struct hc_hashed {
    explicit hc_hashed(const hc_hashed_desc& desc);

    size_t rows, columns, down, across; // numbers, then tiles
    Scratch<float> pool;
    std::vector<uint32_t> place;    // (down, across): 2 * bucket, and 1 for the negative
    std::vector<float> scale, bias; // padded to whole tiles
    HashedF32 kernel;
};

hc_hashed::hc_hashed(const hc_hashed_desc& desc)
    : rows(static_cast<size_t>(desc.rows)), columns(static_cast<size_t>(desc.columns)), pool(checked(desc)) {
    if (desc.scale) check_length("scale", desc.scale, desc.scale_len, desc.scale_len == 1 ? 1 : rows);
    if (desc.bias) check_length("bias", desc.bias, desc.bias_len, rows);
    kernel = select_hashed(cap_of(desc.isa));
    memcpy(pool.data(), desc.values, product(desc.values_len, sizeof(float))); // a file may hold them at any address
    down = ceil_div(rows, kTile);
    across = ceil_div(columns, kTile);
    scale.assign(product(down, kTile), 1.0f);
    bias.assign(product(down, kTile), 0.0f);
    if (desc.scale && rows) {
        memcpy(scale.data(), desc.scale, desc.scale_len * sizeof(float));
        if (desc.scale_len == 1) scale.assign(scale.size(), scale[0]);
    }
    if (desc.bias && rows) memcpy(bias.data(), desc.bias, rows * sizeof(float));
    place.resize(product(down, across));
    const uint64_t buckets = desc.values_len / kTileValues;
    for (size_t i = 0; i < down; ++i) {
        const uint32_t row = mix(static_cast<uint32_t>(2 * i + desc.seed) & kMask);
        for (size_t j = 0; j < across; ++j) {
            const uint32_t hash = mix(row ^ mix(static_cast<uint32_t>(2 * j + 1 + desc.seed) & kMask));
            place[i * across + j] = static_cast<uint32_t>((hash >> 1) * buckets >> 30) << 1 | (hash & 1);
        }
    }
}

namespace {

// From row to row of padded activations: whole tiles, and one more, for rows a power of two apart would share the lines
// of a cache.
size_t pitch_of(const hc_hashed& weight) { return (weight.across + 1) * kTile; }

// x (m, K), padded; and its negative behind it.
Scratch<float> both_signs(const hc_hashed& weight, const float* x, size_t m) {
    const size_t pitch = pitch_of(weight);
    Scratch<float> both(product(2, m, pitch));
    for (size_t i = 0; i < m; ++i)
        for (size_t k = 0; k < pitch; ++k) {
            const float value = k < weight.columns ? x[i * weight.columns + k] : 0.0f;
            both[i * pitch + k] = value;
            both[(m + i) * pitch + k] = -value;
        }
    return both;
}

void hashed_linear(const hc_hashed& weight, const float* x, size_t m, float* y, const hc_exec* exec) {
    const size_t pitch = pitch_of(weight), runs = ceil_div(m, kRowsOfX);
    const Scratch<float> both = both_signs(weight, x, m);
    const double unit_ns = static_cast<double>(pitch * kTile) * kWeightNs * static_cast<double>(1 + smaller(m, kRowsOfX));
    parallel(exec, product(weight.down, runs), unit_ns, [&](size_t begin, size_t end) {
        for (size_t unit = begin; unit < end; ++unit) {
            const size_t tile = unit / runs, first = unit % runs * kRowsOfX, last = smaller(first + kRowsOfX, m);
            const size_t n = tile * kTile, count = smaller(weight.rows - n, kTile);
            for (size_t row = first; row < last; row += kHashedRows) {
                alignas(64) float sum[kHashedRows * kTile] = {};
                const size_t some = smaller(last - row, kHashedRows);
                const float* of = both.data() + row * pitch;
                weight.kernel({weight.pool.data(), weight.place.data() + tile * weight.across, weight.across,
                               {of, of + m * pitch}, pitch, static_cast<int>(some), sum});
                for (size_t i = 0; i < some; ++i)
                    for (size_t r = 0; r < count; ++r)
                        y[(row + i) * weight.rows + n + r] =
                            sum[i * kTile + r] * weight.scale[n + r] + weight.bias[n + r];
            }
        }
    });
}

} // namespace

extern "C" hc_code hc_hashed_open(const hc_hashed_desc* desc, hc_hashed** out, hc_error* error) {
    return guarded(error, [&] {
        if (!out) fail(HC_INVALID_ARGUMENT, "out is null");
        *out = nullptr;
        if (!desc || desc->size != sizeof(hc_hashed_desc))
            fail(HC_INVALID_ARGUMENT, "desc is null or of another version");
        *out = std::make_unique<hc_hashed>(*desc).release();
    });
}

extern "C" void hc_hashed_close(hc_hashed* weight) { delete weight; }

extern "C" hc_code hc_hashed_linear(const hc_hashed* weight, const float* x, size_t m, float* y, const hc_exec* exec,
                                    hc_error* error) {
    return guarded(error, [&] {
        if (!weight) fail(HC_INVALID_ARGUMENT, "weight is null");
        const size_t in = product(m, weight->columns, sizeof(float));
        const size_t out = product(m, weight->rows, sizeof(float));
        if ((in && !x) || (out && !y)) fail(HC_INVALID_ARGUMENT, "x or y is null");
        if (out) hashed_linear(*weight, x, m, y, exec);
    });
}
