// Floats to whole numbers, the same on every instruction set: no branch, no conversion that a compiler may do its way.
#pragma once

#include "inline.h"
#include "rowwise/kernel.h"

namespace hc {
namespace {

// Half to even; |x| < 2^22.
HC_INLINE int32_t rounded(float x) {
    return static_cast<int32_t>(bits_of(x + kRoundingShift) - bits_of(kRoundingShift));
}

HC_INLINE float bounded(float x, float low, float high) {
    x = x > low ? x : low; // NaN becomes low
    return x < high ? x : high;
}

constexpr uint32_t kInfinityBits = 0x7F800000u;

// HC_INT8's rounding of values whose largest |x| has these bits: a scale of NaN where one is not finite.
HC_INLINE Quant symmetric(uint32_t largest, int32_t zero) {
    if (largest >= kInfinityBits) return {__builtin_nanf(""), 0.0f, zero};
    const float to = 127.0f / float_of(largest);
    return {float_of(largest) / 127.0f, bits_of(to) < kInfinityBits ? to : 0.0f, zero};
}

} // namespace
} // namespace hc
