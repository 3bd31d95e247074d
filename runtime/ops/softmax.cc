// hc_softmax: a unit of work is a row.
#include "hashcompile.h"
#include "kernels/table.h"
#include "ops/parallel.h"
#include "ops/weight.h"

namespace hc {
namespace {

constexpr double kSoftmaxNs = 0.4; // for one value

void run(const hc_softmax_desc& desc, const float* x, float* y, const hc_exec* exec) {
    if (desc.rows < 0 || desc.columns < 0) fail(HC_INVALID_ARGUMENT, "a softmax of negative size");
    if (desc.reserved) fail(HC_INVALID_ARGUMENT, "reserved is %u; wanted 0", desc.reserved);
    const size_t rows = static_cast<size_t>(desc.rows), columns = static_cast<size_t>(desc.columns);
    if (!product(rows, columns, sizeof(float))) return;
    if (!x || !y) fail(HC_INVALID_ARGUMENT, "x or y is null");
    const Softmax kernel = select_softmax(cap_of(desc.isa));
    parallel(exec, rows, static_cast<double>(columns) * kSoftmaxNs, [&](size_t begin, size_t end) {
        const size_t at = begin * columns;
        kernel({x + at, end - begin, columns, desc.log != 0, y + at});
    });
}

} // namespace
} // namespace hc

extern "C" hc_code hc_softmax(const hc_softmax_desc* desc, const float* x, float* y, const hc_exec* exec,
                              hc_error* error) {
    return hc::guarded(error, [&] {
        if (!desc || desc->size != sizeof(hc_softmax_desc))
            hc::fail(HC_INVALID_ARGUMENT, "desc is null or of another version");
        hc::run(*desc, x, y, exec);
    });
}
