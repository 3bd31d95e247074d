#include "depthwise_f32/kernel.h"
#include "layout.h"

namespace hc {
namespace {

void depthwise(const DepthwiseF32Call& call) {
    for (size_t m = 0; m < call.rows; ++m)
        for (int n = 0; n < kPair; ++n) {
            float sum = 0;
            for (size_t t = 0; t < call.count; ++t)
                sum += call.x[m * call.step + call.tap[t] + static_cast<size_t>(n)] * call.taps[t * kPair + n];
            call.sum[m * kPair + n] = sum;
        }
}

} // namespace

extern const DepthwiseF32 depthwise_f32_scalar = depthwise;

} // namespace hc
