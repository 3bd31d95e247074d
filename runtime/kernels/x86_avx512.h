// Indices of a tile in a 512-bit register: 16 rows x 4 k, one index a byte.
//
// Bits above the index are not cleared: the lookups that follow ignore them, or their tables repeat.
#pragma once

#include <immintrin.h>

#include "inline.h"
#include "layout.h"

namespace hc {
namespace {

// v >> By, or v << -By. Bits that cross into a neighbouring byte land above its index or are masked later.
template <int By>
HC_INLINE __m512i shifted(__m512i v) {
    if constexpr (By > 0) return _mm512_srli_epi32(v, By);
    if constexpr (By < 0) return _mm512_slli_epi32(v, -By);
    return v;
}

template <int Bits, int Width, int Group>
HC_INLINE __m512i merge_plane(const uint8_t* lines, __m512i index) {
    using P = Plane<Bits, Width>;
    if constexpr (P::present) {
        const __m512i line = _mm512_loadu_si512(lines + P::offset(Group));
        const __m512i part = shifted<P::position(Group) - P::shift>(line);
        if constexpr (P::shift == 0) return part;
        return _mm512_ternarylogic_epi32(_mm512_set1_epi8(P::mask), part, index, 0xCA); // mask ? part : index
    }
    return index;
}

// The indices of group `Group` of the tile whose first line is `lines`.
template <int Bits, int Group>
HC_INLINE __m512i tile_indices(const uint8_t* lines) {
    __m512i index = _mm512_setzero_si512();
    index = merge_plane<Bits, 8, Group>(lines, index);
    index = merge_plane<Bits, 4, Group>(lines, index);
    index = merge_plane<Bits, 2, Group>(lines, index);
    return merge_plane<Bits, 1, Group>(lines, index);
}

} // namespace
} // namespace hc
