// The loops of the ARM kernels, a quarter tile a register.
#pragma once

#include "arm64_dot.h"
#include "codebook_i8/kernel.h"

namespace hc {
namespace {

template <int Bits>
HC_INLINE ByteTable<Bits> load_table(const int8_t* entries, uint8_t flip) {
    ByteTable<Bits> table;
    unroll<ByteTable<Bits>::registers>([&](auto r) HC_LAMBDA {
        const uint8x16_t part = vreinterpretq_u8_s8(vld1q_s8(entries + 16 * r.value));
        table.part[r.value] = veorq_u8(part, vdupq_n_u8(flip));
    });
    return table;
}

template <int Bits, int Rows>
void multiply_tile(const CodebookI8Call& call, int first_row, int tile) {
    using L = Layout<Bits>;
    const uint8_t* codes = call.codes + tile * kLine;
    const ByteTable<Bits> table = load_table<Bits>(call.table[tile], Dot::kFlip);
    const uint8_t* row[Rows];
    unroll<Rows>([&](auto m) HC_LAMBDA { row[m.value] = call.q[first_row + m.value]; });
    QuarterTileSums<Rows> sums;
    int32_t offset[Rows] = {};
    for (size_t s = 0; s < call.segments; ++s) {
        size_t k = call.segment[s];
        unroll<Rows>([&](auto m)
                         HC_LAMBDA { offset[m.value] += flip_offset(row[m.value] + k, call.blocks * L::period); });
        for (size_t b = call.blocks; b; --b, codes += L::block_bytes, k += L::period)
            unroll<L::groups>([&](auto g) HC_LAMBDA {
                uint8x16_t w[kQuarters];
                unroll<kQuarters>([&](auto i) HC_LAMBDA {
                    w[i.value] = table[quarter_tile_indices<Bits, g.value>(codes + i.value * kQuarterLine)];
                });
                sums.add(w, row, k + 4 * g.value);
            });
    }
    sums.store(call.sum + first_row * kPair + tile * kTile, offset, false);
}

template <int Bits>
void multiply(const CodebookI8Call& call) {
    for (int tile = 0; tile < call.tiles; ++tile)
        for (int m = 0; m < call.rows; m += Dot::kRows)
            unroll<Dot::kRows>([&](auto i) HC_LAMBDA {
                if (call.rows - m == i.value + 1 || (i.value + 1 == Dot::kRows && call.rows - m > i.value))
                    multiply_tile<Bits, i.value + 1>(call, m, tile);
            });
}

template <int Bits>
void decode(const uint8_t* codes, size_t blocks, const int8_t* const tables[2], int8_t* weights) {
    using L = Layout<Bits>;
    for (int tile = 0; tile < 2; ++tile) {
        const ByteTable<Bits> table = load_table<Bits>(tables[tile], 0);
        const uint8_t* from = codes + tile * kLine;
        auto* to = reinterpret_cast<uint8_t*>(weights + tile * kLine);
        for (size_t b = blocks; b; --b, from += L::block_bytes, to += L::groups * kPairLine)
            unroll<L::groups * kQuarters>([&](auto i) HC_LAMBDA {
                constexpr int g = i.value / kQuarters, at = i.value % kQuarters * kQuarterLine;
                // a name of its own: where vst1q_u8 is a macro, the comma of the template would end its argument
                const uint8x16_t line = table[quarter_tile_indices<Bits, g>(from + at)];
                vst1q_u8(to + g * kPairLine + at, line);
            });
    }
}

} // namespace
} // namespace hc
