// The loop of the kernels on 256 bits, half a tile a register.
#pragma once

#include "int8/kernel.h"
#include "x86_dot.h"

namespace hc {
namespace {

template <int Rows>
void multiply_tile(const Int8Call& call, int first_row, int tile) {
    const int8_t* w = call.weights + tile * kLine;
    const uint8_t* row[Rows];
    unroll<Rows>([&](auto m) HC_LAMBDA { row[m.value] = call.q[first_row + m.value]; });
    HalfTileSums<Rows> sums;
    const auto group = [&](auto g, size_t k) HC_LAMBDA {
        const auto* halves = reinterpret_cast<const __m256i*>(w);
        sums.template add<g.value>({_mm256_loadu_si256(halves), _mm256_loadu_si256(halves + 1)}, row, k);
        w += kPairLine;
    };
    size_t k = call.k, left = call.groups;
    for (; left >= 2; left -= 2, k += 8) unroll<2>([&](auto g) HC_LAMBDA { group(g, k + 4 * g.value); });
    if (left) group(Index<0>{}, k);
    sums.store(call.sum + first_row * kPair + tile * kTile, call.add);
}

void int8(const Int8Call& call) {
    static constexpr void (*by_rows[kDotRows])(const Int8Call&, int, int) = {multiply_tile<1>, multiply_tile<2>,
                                                                             multiply_tile<3>, multiply_tile<4>};
    for (int tile = 0; tile < call.tiles; ++tile)
        for (int m = 0; m < call.rows; m += kDotRows) by_rows[smaller(call.rows - m, kDotRows) - 1](call, m, tile);
}

} // namespace
} // namespace hc
