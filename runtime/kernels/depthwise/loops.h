// The sums as loops over channels, which every compiler vectorises.
#pragma once

#include "depthwise/kernel.h"
#include "inline.h"
#include "layout.h"

namespace hc {
namespace {

void depthwise(const DepthwiseCall& call) {
    for (size_t m = 0; m < call.rows; ++m) {
        int32_t sum[kPair] = {};
        const uint8_t* q = call.q + m * call.step;
        for (size_t t = 0; t < 4 * call.quads; ++t) {
            const uint8_t* x = q + call.tap[t];
            const int8_t* w = call.taps + t / 4 * kPair * 4 + t % 4;
            for (int n = 0; n < kPair; ++n) sum[n] += x[n] * w[4 * n];
        }
        memcpy(call.sum + m * kPair, sum, sizeof sum);
    }
}

} // namespace
} // namespace hc
