// The loop of the ARM kernels: a tile's centroids are looked up four rows at a time, and multiplied as a `Dot` says:
//     Dot::Sum                  4 rows of sums
//     Dot::add(sum, w, x)       sum[row] += sum of w[row][0..3] * x[0..3]; x is repeated for every row
//     Dot::total(sum)           int32x4_t
//     Dot::kRows                rows of activations at once, as many as registers allow
//     Dot::kFlip                128 if w is unsigned: its bytes are centroids + 128, and 128 times the sum of the
//                               activations is taken out at the end; else 0
#pragma once

#include "arm64_neon.h"
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

// Four activations, repeated for every row.
HC_INLINE uint8x16_t four_activations(const uint8_t* q) { return vreinterpretq_u8_s32(vdupq_n_s32(load_dword(q))); }

// All activations of one row; a run is a multiple of 4 long.
inline int32_t sum_of_row(const CodebookI8Call& call, int row, size_t run) {
    uint32x4_t sum = vdupq_n_u32(0);
    for (size_t s = 0; s < call.segments; ++s) {
        const uint8_t* q = call.q[row] + call.segment[s];
        size_t i = 0;
        for (; i + 16 <= run; i += 16) sum = vpadalq_u16(sum, vpaddlq_u8(vld1q_u8(q + i)));
        for (; i < run; i += 4) {
            const uint8x8_t four = vreinterpret_u8_s32(vset_lane_s32(load_dword(q + i), vdup_n_s32(0), 0));
            sum = vaddw_u16(sum, vpaddl_u8(four));
        }
    }
    return static_cast<int32_t>(vaddvq_u32(sum));
}

template <class Dot, int Bits, int Rows>
void multiply_tile(const CodebookI8Call& call, int first_row, int tile) {
    using L = Layout<Bits>;
    const uint8_t* codes = call.codes + tile * kLine;
    const ByteTable<Bits> table = load_table<Bits>(call.table[tile], Dot::kFlip);
    const uint8_t* row[Rows];
    typename Dot::Sum sum[Rows][kQuarters] = {};
    unroll<Rows>([&](auto m) HC_LAMBDA { row[m.value] = call.q[first_row + m.value]; });
    for (size_t s = 0; s < call.segments; ++s) {
        size_t k = call.segment[s];
        for (size_t b = call.blocks; b; --b, codes += L::block_bytes, k += L::period)
            unroll<L::groups>([&](auto g) HC_LAMBDA {
                uint8x16_t w[kQuarters];
                unroll<kQuarters>([&](auto i) HC_LAMBDA {
                    w[i.value] = table[quarter_tile_indices<Bits, g.value>(codes + i.value * kQuarterLine)];
                });
                unroll<Rows>([&](auto m) HC_LAMBDA {
                    const uint8x16_t x = four_activations(row[m.value] + k + 4 * g.value);
                    unroll<kQuarters>([&](auto i) HC_LAMBDA { Dot::add(sum[m.value][i.value], w[i.value], x); });
                });
            });
    }
    unroll<Rows>([&](auto m) HC_LAMBDA {
        const int from = first_row + m.value;
        const int32_t over = Dot::kFlip ? Dot::kFlip * sum_of_row(call, from, call.blocks * L::period) : 0;
        unroll<kQuarters>([&](auto i) HC_LAMBDA {
            vst1q_s32(call.sum + from * kPair + tile * kTile + 4 * i.value,
                      vsubq_s32(Dot::total(sum[m.value][i.value]), vdupq_n_s32(over)));
        });
    });
}

// Rows beyond Dot::kRows in further passes.
template <class Dot, int Bits>
void multiply_rows(const CodebookI8Call& call) {
    for (int tile = 0; tile < call.tiles; ++tile)
        for (int m = 0; m < call.rows; m += Dot::kRows)
            unroll<Dot::kRows>([&](auto i) HC_LAMBDA {
                if (smaller(call.rows - m, Dot::kRows) == i.value + 1)
                    multiply_tile<Dot, Bits, i.value + 1>(call, m, tile);
            });
}

} // namespace
} // namespace hc
