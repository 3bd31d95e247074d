// Indices of a quarter tile in a 128-bit register: 4 rows x 4 k, one index a byte, bits above it cleared; and bytes
// looked up by them.
#pragma once

#include <arm_neon.h>

#include "inline.h"
#include "layout.h"

namespace hc {
namespace {

constexpr int kQuarters = 4;
constexpr int kQuarterLine = kLine / kQuarters; // bytes

template <int Bits, int Width, int Group>
HC_INLINE uint8x16_t merge_quarter_plane(const uint8_t* lines, uint8x16_t index) {
    using P = Plane<Bits, Width>;
    if constexpr (P::present) {
        constexpr int by = P::position(Group) - P::shift;
        uint8x16_t part = vld1q_u8(lines + P::offset(Group));
        if constexpr (by > 0) part = vshrq_n_u8(part, by);
        if constexpr (by < 0) part = vshlq_n_u8(part, -by);
        if constexpr (P::mask != (by > 0 ? 255 >> by : 255 << -by & 255)) part = vandq_u8(part, vdupq_n_u8(P::mask));
        return P::shift ? vorrq_u8(index, part) : part;
    }
    return index;
}

// The indices of group `Group` of the quarter tile whose first bytes are at `lines`.
template <int Bits, int Group>
HC_INLINE uint8x16_t quarter_tile_indices(const uint8_t* lines) {
    uint8x16_t index = vdupq_n_u8(0);
    index = merge_quarter_plane<Bits, 8, Group>(lines, index);
    index = merge_quarter_plane<Bits, 4, Group>(lines, index);
    index = merge_quarter_plane<Bits, 2, Group>(lines, index);
    return merge_quarter_plane<Bits, 1, Group>(lines, index);
}

// 2^Bits bytes, at least 16. tbl gives 0, and tbx what was found before, where an index is beyond its registers.
template <int Bits>
struct ByteTable {
    static constexpr int registers = Bits <= 4 ? 1 : 1 << (Bits - 4);
    uint8x16_t part[registers];

    HC_INLINE uint8x16_t operator[](uint8x16_t index) const {
        if constexpr (registers == 1) return vqtbl1q_u8(part[0], index);
        if constexpr (registers == 2) return vqtbl2q_u8({{part[0], part[1]}}, index);
        if constexpr (registers >= 4) {
            uint8x16_t found = vqtbl4q_u8({{part[0], part[1], part[2], part[3]}}, index);
            unroll<registers / 4 - 1>([&](auto i) HC_LAMBDA {
                constexpr int first = 4 * (i.value + 1);
                const uint8x16_t beyond = vsubq_u8(index, vdupq_n_u8(16 * first));
                found = vqtbx4q_u8(found, {{part[first], part[first + 1], part[first + 2], part[first + 3]}}, beyond);
            });
            return found;
        }
    }
};

} // namespace
} // namespace hc
