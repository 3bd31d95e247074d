// The T16 layout of packed indices, as constants (its words are in hashcompile.h, at hc_codes_bytes).
//
// A group is the four neighbouring k whose indices lie in the four bytes of a row, at one shift.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace hc {
namespace {

constexpr int kTile = 16;      // rows of a tile
constexpr int kPair = 32;      // rows of a pair: the unit of padding and of work
constexpr int kLine = 64;      // bytes: 16 rows x 4
constexpr int kPairLine = 128; // the same line of both tiles
constexpr int kRowBlock = 8;   // activation rows that a kernel takes at once, at most

template <int Bits>
struct Layout {
    static constexpr int narrowest = Bits & -Bits;
    static constexpr int period = 32 / narrowest; // k of a block
    static constexpr int groups = period / 4;
    static constexpr int lines = period * Bits / 32;
    static constexpr int block_bytes = lines * kPairLine;
    static constexpr bool one_plane = Bits == narrowest;
};

// The plane of width `Width` (8, 4, 2 or 1) of a `Bits`-bit index. Wider planes come first and hold lower bits.
template <int Bits, int Width>
struct Plane {
    static constexpr bool present = (Bits & Width) != 0;
    static constexpr int shift = Bits & ~(2 * Width - 1); // of its lowest bit, in the index
    static constexpr int mask = present ? ((1 << Width) - 1) << shift : 0;

    // Where group `g` lies: the byte offset of its line in the tile's block, and the position in the byte.
    static constexpr int offset(int g) { return (Layout<Bits>::period * shift / 32 + g * Width / 8) * kPairLine; }
    static constexpr int position(int g) { return g * Width % 8; }
};

} // namespace
} // namespace hc
