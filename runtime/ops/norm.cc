// hc_norm: a unit of work is a row.
#include <vector>

#include "hashcompile.h"
#include "kernels/table.h"
#include "ops/parallel.h"
#include "ops/weight.h"

namespace hc {
namespace {

constexpr double kNormNs = 0.2; // for one value

void norm(const hc_norm_desc& desc, const float* x, const float* residual, float* y, const hc_exec* exec) {
    if (desc.rows < 0 || desc.columns < 0) fail(HC_INVALID_ARGUMENT, "a norm of negative size");
    if (!(desc.epsilon >= 0)) // NaN too
        fail(HC_INVALID_ARGUMENT, "epsilon is %g; wanted 0 or more", static_cast<double>(desc.epsilon));
    const size_t rows = static_cast<size_t>(desc.rows), columns = static_cast<size_t>(desc.columns);
    if (!product(rows, columns, sizeof(float))) return;
    if (!x || !y) fail(HC_INVALID_ARGUMENT, "x or y is null");
    if (desc.bias && !desc.weight) fail(HC_INVALID_ARGUMENT, "a bias without a weight");
    const std::vector<float> zeros(desc.bias || !desc.weight ? 0 : columns);
    const Norm kernel = select_norm(cap_of(desc.isa));
    parallel(exec, rows, static_cast<double>(columns) * kNormNs, [&](size_t begin, size_t end) {
        const size_t at = begin * columns;
        kernel({x + at, residual ? residual + at : nullptr, end - begin, columns, desc.centered != 0, desc.epsilon,
                desc.weight, desc.bias ? desc.bias : zeros.data(), y + at});
    });
}

} // namespace
} // namespace hc

extern "C" hc_code hc_norm(const hc_norm_desc* desc, const float* x, const float* residual, float* y,
                           const hc_exec* exec, hc_error* error) {
    return hc::guarded(error, [&] {
        if (!desc || desc->size != sizeof(hc_norm_desc))
            hc::fail(HC_INVALID_ARGUMENT, "desc is null or of another version");
        hc::norm(*desc, x, residual, y, exec);
    });
}
