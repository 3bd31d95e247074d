// The loop of the ARM kernels, a quarter tile a register.
#pragma once

#include "arm64_dot.h"
#include "int8/kernel.h"

namespace hc {
namespace {

template <int Rows>
void multiply_tile(const Int8Call& call, int first_row, int tile) {
    const auto* w = reinterpret_cast<const uint8_t*>(call.weights + tile * kLine);
    const uint8_t* row[Rows];
    int32_t offset[Rows];
    unroll<Rows>([&](auto m) HC_LAMBDA {
        row[m.value] = call.q[first_row + m.value] + call.k;
        offset[m.value] = flip_offset(row[m.value], 4 * call.groups);
    });
    QuarterTileSums<Rows> sums;
    for (size_t g = 0; g < call.groups; ++g, w += kPairLine) {
        uint8x16_t quarters[kQuarters];
        unroll<kQuarters>([&](auto i) HC_LAMBDA { quarters[i.value] = flipped(vld1q_u8(w + i.value * kQuarterLine)); });
        sums.add(quarters, row, 4 * g);
    }
    sums.store(call.sum + first_row * kPair + tile * kTile, offset, call.add);
}

void multiply_rows(const Int8Call& call, int first_row, int rows) {
    for (int tile = 0; tile < call.tiles; ++tile)
        for (int m = first_row; m < first_row + rows; m += Dot::kRows)
            unroll<Dot::kRows>([&](auto i) HC_LAMBDA {
                const int left = first_row + rows - m;
                if (left == i.value + 1 || (i.value + 1 == Dot::kRows && left > i.value))
                    multiply_tile<i.value + 1>(call, m, tile);
            });
}

} // namespace
} // namespace hc
