// Four indices of one row at once, without vectors.
#pragma once

#include "inline.h"
#include "layout.h"

namespace hc {
namespace {

template <int Bits, int Width>
HC_INLINE uint32_t plane_of_four(const uint8_t* row, int g) {
    using P = Plane<Bits, Width>;
    if constexpr (!P::present) return 0;
    constexpr uint32_t field = ((1u << Width) - 1) * 0x01010101u;
    return (uint32_t(load_dword(row + P::offset(g))) >> P::position(g) & field) << P::shift;
}

// The indices of group `g`, one in each byte. `row` points at the row's four bytes in the block's first line.
template <int Bits>
HC_INLINE uint32_t four_indices(const uint8_t* row, int g) {
    return plane_of_four<Bits, 8>(row, g) | plane_of_four<Bits, 4>(row, g) | plane_of_four<Bits, 2>(row, g) |
           plane_of_four<Bits, 1>(row, g);
}

} // namespace
} // namespace hc
