// The loop of the room over registers of an instruction set: Vector is one of vector_f32.h.
#pragma once

#include "depthwise_f32/kernel.h"
#include "inline.h"
#include "layout.h"

namespace hc {
namespace {

// `Parts` registers of channels for each of `Rows` windows: as many sums as hide the time of a multiplication.
template <class Vector, int Rows, int Parts>
HC_INLINE void windows(const DepthwiseF32Call& call, size_t m, int first) {
    typename Vector::Type sum[Rows][Parts];
    unroll<Rows * Parts>([&](auto i) HC_LAMBDA { sum[i.value / Parts][i.value % Parts] = Vector::zero(); });
    const float* x = call.x + m * call.step + first;
    const float* taps = call.taps + first;
    for (size_t t = 0; t < call.count; ++t, taps += kPair) {
        const float* at = x + call.tap[t];
        unroll<Parts>([&](auto p) HC_LAMBDA {
            const typename Vector::Type w = Vector::load(taps + p.value * Vector::lanes);
            unroll<Rows>([&](auto r) HC_LAMBDA {
                sum[r.value][p.value] =
                    Vector::fused(Vector::load(at + r.value * call.step + p.value * Vector::lanes), w, sum[r.value][p.value]);
            });
        });
    }
    unroll<Rows * Parts>([&](auto i) HC_LAMBDA {
        constexpr int r = i.value / Parts, p = i.value % Parts;
        Vector::store(call.sum + (m + r) * kPair + first + p * Vector::lanes, sum[r][p]);
    });
}

template <class Vector, int Rows, int Parts>
void depthwise(const DepthwiseF32Call& call) {
    for (int first = 0; first < kPair; first += Parts * Vector::lanes) {
        size_t m = 0;
        for (; m + Rows <= call.rows; m += Rows) windows<Vector, Rows, Parts>(call, m, first);
        for (; m < call.rows; ++m) windows<Vector, 1, Parts>(call, m, first);
    }
}

} // namespace
} // namespace hc
