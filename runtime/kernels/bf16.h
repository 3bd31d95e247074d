// bf16: the upper half of a float, rounded to nearest, halves to even. NaN stays NaN.
#pragma once

#include "inline.h"

namespace hc {
namespace {

HC_INLINE uint16_t bf16_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return static_cast<uint16_t>(bits >> 16 | 0x40);
    return static_cast<uint16_t>((bits + 0x7FFFu + (bits >> 16 & 1)) >> 16);
}

HC_INLINE float float_of(uint16_t bf16) {
    const uint32_t bits = uint32_t{bf16} << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

} // namespace
} // namespace hc
