// One vpdpbusd for 64 weights and a row of activations.
#include <immintrin.h>

#include "inline.h"
#include "int8/kernel.h"
#include "layout.h"

namespace hc {
namespace {

// With one or two rows of activations the weights are read faster than they come: ask for them early.
constexpr int kPrefetch = 4096;

template <int Rows, int Tiles>
void multiply(const Int8Call& call, int first_row) {
    // A multiplication waits about four cycles for the last one into the same sum: with few rows, each has two.
    constexpr int chains = Rows * Tiles <= 4 ? 2 : 1;
    const int8_t* w = call.weights;
    const uint8_t* row[Rows];
    __m512i sum[chains][Rows][Tiles];
    unroll<Rows>([&](auto m) HC_LAMBDA { row[m.value] = call.q[first_row + m.value]; });
    unroll<Rows * Tiles>([&](auto i) HC_LAMBDA {
        unroll<chains>([&](auto c)
                           HC_LAMBDA { sum[c.value][i.value / Tiles][i.value % Tiles] = _mm512_setzero_si512(); });
    });
    const auto group = [&](auto chain, size_t k) HC_LAMBDA {
        if constexpr (Rows <= 2)
            unroll<Tiles>([&](auto t) HC_LAMBDA { _mm_prefetch(w + kPrefetch + t.value * kLine, _MM_HINT_T0); });
        __m512i tile[Tiles];
        unroll<Tiles>([&](auto t) HC_LAMBDA { tile[t.value] = _mm512_loadu_si512(w + t.value * kLine); });
        unroll<Rows>([&](auto m) HC_LAMBDA {
            const __m512i x = _mm512_set1_epi32(load_dword(row[m.value] + k));
            unroll<Tiles>([&](auto t) HC_LAMBDA {
                __m512i& to = sum[chain.value % chains][m.value][t.value];
                to = _mm512_dpbusd_epi32(to, x, tile[t.value]);
            });
        });
        w += kPairLine;
    };
    size_t k = call.k, left = call.groups;
    for (; left >= 2; left -= 2, k += 8) unroll<2>([&](auto g) HC_LAMBDA { group(g, k + 4 * g.value); });
    if (left) group(Index<0>{}, k);
    unroll<Rows * Tiles>([&](auto i) HC_LAMBDA {
        constexpr int m = i.value / Tiles, t = i.value % Tiles;
        int32_t* to = call.sum + (first_row + m) * kPair + t * kTile;
        __m512i total = call.add ? _mm512_loadu_si512(to) : _mm512_setzero_si512();
        unroll<chains>([&](auto c) HC_LAMBDA { total = _mm512_add_epi32(total, sum[c.value][m][t]); });
        _mm512_storeu_si512(to, total);
    });
}

void int8(const Int8Call& call) {
    static constexpr void (*by_rows[2][kRowBlock])(const Int8Call&, int) = {
        {multiply<1, 1>, multiply<2, 1>, multiply<3, 1>, multiply<4, 1>, multiply<5, 1>, multiply<6, 1>, multiply<7, 1>,
         multiply<8, 1>},
        {multiply<1, 2>, multiply<2, 2>, multiply<3, 2>, multiply<4, 2>, multiply<5, 2>, multiply<6, 2>, multiply<7, 2>,
         multiply<8, 2>}};
    for (int m = 0; m < call.rows; m += kRowBlock)
        by_rows[call.tiles - 1][smaller(call.rows - m, kRowBlock) - 1](call, m);
}

} // namespace

extern const Int8 int8_avx512vnni = int8;

} // namespace hc
