// hc_matmul: a unit of work is a tile of rows of one product, on the kernels of attention, whose two products these are.
#include "hashcompile.h"
#include "kernels/layout.h"
#include "kernels/table.h"
#include "ops/parallel.h"
#include "ops/scratch.h"
#include "ops/weight.h"

namespace hc {
namespace {

constexpr double kProductNs = 0.02; // for one multiplication
constexpr size_t kColumns = 1024;   // of a block, whose sums stay in the L2 cache

size_t sized(const char* what, int64_t size) {
    if (size < 0) fail(HC_INVALID_ARGUMENT, "%s is %lld; wanted 0 or more", what, static_cast<long long>(size));
    return static_cast<size_t>(size);
}

void matmul(const hc_matmul_desc& desc, const float* x, const float* w, float* y, const hc_exec* exec) {
    const size_t batch = sized("batch", desc.batch), rows = sized("rows", desc.rows),
                 columns = sized("columns", desc.columns), inner = sized("inner", desc.inner);
    if (desc.reserved) fail(HC_INVALID_ARGUMENT, "reserved is %u; wanted 0", desc.reserved);
    const size_t xs = product(batch, rows, inner, sizeof(float)), ws = product(batch, inner, columns, sizeof(float));
    const size_t ys = product(batch, rows, columns, sizeof(float));
    if ((xs && !x) || (ws && !w) || (ys && !y)) fail(HC_INVALID_ARGUMENT, "x, w or y is null");
    const Attention kernel = select_attention(cap_of(desc.isa)).f32;
    if (!ys) return;
    const size_t tiles = ceil_div(rows, size_t{kPair});
    const size_t row_step = desc.transposed ? inner : 1, step = desc.transposed ? 1 : columns;
    const double ns = static_cast<double>(inner) * static_cast<double>(columns) * kPair * kProductNs;
    float ones[kPair];
    for (float& one : ones) one = 1.0f;
    parallel(exec, product(batch, tiles), ns, [&](size_t begin, size_t end) {
        Scratch<float> across(product(inner, kPair)), sums(product(smaller(columns, kColumns), kPair));
        for (size_t unit = begin; unit < end; ++unit) {
            const size_t b = unit / tiles, first = unit % tiles * kPair;
            const int count = static_cast<int>(smaller(rows - first, kPair));
            kernel.transpose(x + (b * rows + first) * inner, inner, count, inner, 1.0f, across.data());
            const float* of_batch = w + b * inner * columns;
            float* to = y + (b * rows + first) * columns;
            for (size_t c = 0; c < columns; c += kColumns) {
                const size_t n = smaller(columns - c, kColumns);
                kernel.product(across.data(), inner, of_batch + c * row_step, row_step, step, n, sums.data());
                kernel.transpose_back(sums.data(), ones, count, n, to + c, columns);
            }
        }
    });
}

} // namespace
} // namespace hc

extern "C" hc_code hc_matmul(const hc_matmul_desc* desc, const float* x, const float* w, float* y, const hc_exec* exec,
                             hc_error* error) {
    return hc::guarded(error, [&] {
        if (!desc || desc->size != sizeof(hc_matmul_desc))
            hc::fail(HC_INVALID_ARGUMENT, "desc is null or of another version");
        hc::matmul(*desc, x, w, y, exec);
    });
}
