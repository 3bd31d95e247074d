// hc_activate: a unit of work is a block of values, which stays in the L1 cache from step to step.
#include <string.h>

#include "ops/finish.h"
#include "ops/parallel.h"

namespace hc {
namespace {

constexpr size_t kBlock = 1024;
constexpr double kBlockNs = 300;

void activate(hc_isa isa, const hc_epilogue* epilogue, const float* x, size_t count, float* y, const hc_exec* exec) {
    const Activation activation = activation_of(epilogue);
    const float* residual = epilogue ? epilogue->residual : nullptr;
    if (!product(count, sizeof(float))) return;
    if (!x || !y) fail(HC_INVALID_ARGUMENT, "x or y is null");
    const Rowwise rowwise = select(1, cap_of(isa)).rowwise;
    parallel(exec, ceil_div(count, kBlock), kBlockNs, [&](size_t begin, size_t end) {
        for (size_t at = begin * kBlock; at < end * kBlock && at < count; at += kBlock) {
            const size_t n = count - at < kBlock ? count - at : kBlock;
            memcpy(y + at, x + at, n * sizeof(float));
            if (residual) rowwise.add(y + at, residual + at, n);
            rowwise.activate(y + at, n, activation);
        }
    });
}

} // namespace
} // namespace hc

extern "C" hc_code hc_activate(hc_isa isa, const hc_epilogue* epilogue, const float* x, size_t count, float* y,
                               const hc_exec* exec, hc_error* error) {
    return hc::guarded(error, [&] { hc::activate(isa, epilogue, x, count, y, exec); });
}
