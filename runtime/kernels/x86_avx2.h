// Indices of half a tile in a 256-bit register: 8 rows x 4 k, one index a byte, bits above it cleared.
#pragma once

#include <immintrin.h>

#include "inline.h"
#include "layout.h"

namespace hc {
namespace {

template <int Bits, int Width, int Group>
HC_INLINE __m256i half_tile_plane(const uint8_t* lines) {
    using P = Plane<Bits, Width>;
    if constexpr (P::present) {
        constexpr int by = P::position(Group) - P::shift;
        __m256i part = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(lines + P::offset(Group)));
        if constexpr (by > 0) part = _mm256_srli_epi32(part, by);
        if constexpr (by < 0) part = _mm256_slli_epi32(part, -by);
        return _mm256_and_si256(part, _mm256_set1_epi8(static_cast<char>(P::mask)));
    }
    return _mm256_setzero_si256();
}

// The indices of group `Group` of the half tile whose first bytes are at `lines`.
template <int Bits, int Group>
HC_INLINE __m256i half_tile_indices(const uint8_t* lines) {
    return _mm256_or_si256(
        _mm256_or_si256(half_tile_plane<Bits, 8, Group>(lines), half_tile_plane<Bits, 4, Group>(lines)),
        _mm256_or_si256(half_tile_plane<Bits, 2, Group>(lines), half_tile_plane<Bits, 1, Group>(lines)));
}

} // namespace
} // namespace hc
