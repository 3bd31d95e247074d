// The loops of the kernels on 256 bits, half a tile a register. pshufb looks up 32 centroids in a table of 16, which
// bit 4 and those above it then choose among.
#pragma once

#include "codebook_i8/kernel.h"
#include "x86_avx2.h"
#include "x86_dot.h"

namespace hc {
namespace {

// Entries [First, First + 2^Bits) of the table, by the lower bits of `index`.
template <int Bits, int First = 0>
HC_INLINE __m256i lookup(const int8_t* table, __m256i index) {
    if constexpr (Bits <= 4) {
        const auto* sixteen = reinterpret_cast<const __m128i*>(table + First);
        return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128(sixteen)), index);
    } else {
        constexpr int half = 1 << (Bits - 1);
        const __m256i lower =
            Bits == 8 ? _mm256_and_si256(index, _mm256_set1_epi8(half - 1)) : index; // pshufb heeds bit 7
        return _mm256_blendv_epi8(lookup<Bits - 1, First>(table, lower), lookup<Bits - 1, First + half>(table, lower),
                                  _mm256_slli_epi16(index, 8 - Bits));
    }
}

template <int Bits, int Group>
HC_INLINE __m256i half_tile(const int8_t* table, const uint8_t* codes, int half) {
    return lookup<Bits>(table, half_tile_indices<Bits, Group>(codes + half * (kLine / 2)));
}

template <int Bits, int Rows>
void multiply_tile(const CodebookI8Call& call, int first_row, int tile) {
    using L = Layout<Bits>;
    const uint8_t* codes = call.codes + tile * kLine;
    const int8_t* table = call.table[tile];
    const uint8_t* row[Rows];
    unroll<Rows>([&](auto m) HC_LAMBDA { row[m.value] = call.q[first_row + m.value]; });
    HalfTileSums<Rows> sums;
    for (size_t s = 0; s < call.segments; ++s) {
        size_t k = call.segment[s];
        for (size_t b = call.blocks; b; --b, codes += L::block_bytes, k += L::period)
            unroll<L::groups>([&](auto g) HC_LAMBDA {
                sums.template add<g.value>(
                    {half_tile<Bits, g.value>(table, codes, 0), half_tile<Bits, g.value>(table, codes, 1)}, row,
                    k + 4 * g.value);
            });
    }
    sums.store(call.sum + first_row * kPair + tile * kTile, false);
}

template <int Bits>
void multiply(const CodebookI8Call& call) {
    static constexpr void (*by_rows[kDotRows])(const CodebookI8Call&, int, int) = {
        multiply_tile<Bits, 1>, multiply_tile<Bits, 2>, multiply_tile<Bits, 3>, multiply_tile<Bits, 4>};
    for (int tile = 0; tile < call.tiles; ++tile)
        for (int m = 0; m < call.rows; m += kDotRows) by_rows[smaller(call.rows - m, kDotRows) - 1](call, m, tile);
}

template <int Bits>
void decode(const uint8_t* codes, size_t blocks, const int8_t* const table[2], int8_t* weights) {
    using L = Layout<Bits>;
    for (; blocks; --blocks, codes += L::block_bytes, weights += L::groups * kPairLine)
        unroll<L::groups * 4>([&](auto i) HC_LAMBDA {
            constexpr int g = i.value / 4, tile = i.value / 2 % 2, half = i.value % 2;
            auto* to = reinterpret_cast<__m256i*>(weights + g * kPairLine + tile * kLine + half * (kLine / 2));
            _mm256_storeu_si256(to, half_tile<Bits, g>(table[tile], codes + tile * kLine, half));
        });
}

} // namespace
} // namespace hc
