// usmmla takes two rows of activations and two rows of weights, 8 k each: 32 products an instruction.
#include "int8/arm64_quarter_tile.h"

namespace hc {
namespace {

constexpr int kMostPairs = 2; // of rows of activations: 16 sums in 32 registers

// Two neighbouring groups of a quarter tile: 2 x 2 rows of 8 k.
HC_INLINE void zip(const int8_t* w, int8x16_t (&rows)[2]) {
    const int32x4_t first = vreinterpretq_s32_s8(vld1q_s8(w)), second = vreinterpretq_s32_s8(vld1q_s8(w + kPairLine));
    rows[0] = vreinterpretq_s8_s32(vzip1q_s32(first, second));
    rows[1] = vreinterpretq_s8_s32(vzip2q_s32(first, second));
}

template <int Pairs>
void multiply_pairs(const Int8Call& call, int first_row, int tile) {
    const int8_t* w = call.weights + tile * kLine;
    const uint8_t* row[2 * Pairs];
    int32x4_t sum[Pairs][kTile / 2]; // of two rows of activations and two of weights
    unroll<2 * Pairs>([&](auto m) HC_LAMBDA { row[m.value] = call.q[first_row + m.value] + call.k; });
    unroll<Pairs * kTile / 2>([&](auto i)
                                  HC_LAMBDA { sum[i.value * 2 / kTile][i.value % (kTile / 2)] = vdupq_n_s32(0); });
    const size_t twos = call.groups / 2;
    for (size_t i = 0; i < twos; ++i, w += 2 * kPairLine) {
        int8x16_t rows[kQuarters][2];
        unroll<kQuarters>([&](auto quarter) HC_LAMBDA { zip(w + quarter.value * kQuarterLine, rows[quarter.value]); });
        unroll<Pairs>([&](auto p) HC_LAMBDA {
            const uint8x16_t x = vcombine_u8(vld1_u8(row[2 * p.value] + 8 * i), vld1_u8(row[2 * p.value + 1] + 8 * i));
            unroll<kTile / 2>([&](auto n) HC_LAMBDA {
                int32x4_t& to = sum[p.value][n.value];
                to = vusmmlaq_s32(to, x, rows[n.value / 2][n.value % 2]);
            });
        });
    }
    unroll<Pairs * kQuarters>([&](auto i) HC_LAMBDA {
        constexpr int p = i.value / kQuarters, quarter = i.value % kQuarters;
        const int64x2_t left = vreinterpretq_s64_s32(sum[p][2 * quarter]);
        const int64x2_t right = vreinterpretq_s64_s32(sum[p][2 * quarter + 1]);
        const int32x4_t total[2] = {vreinterpretq_s32_s64(vzip1q_s64(left, right)),
                                    vreinterpretq_s32_s64(vzip2q_s64(left, right))};
        unroll<2>([&](auto m) HC_LAMBDA {
            int32_t* to = call.sum + (first_row + 2 * p + m.value) * kPair + tile * kTile + 4 * quarter;
            vst1q_s32(to, call.add ? vaddq_s32(total[m.value], vld1q_s32(to)) : total[m.value]);
        });
    });
}

// The matrix instruction for pairs of rows and of groups; usdot for what is left.
void int8(const Int8Call& call) {
    const int paired = call.rows / 2 * 2;
    for (int tile = 0; tile < call.tiles; ++tile)
        for (int m = 0; m < paired; m += 2 * kMostPairs)
            (paired - m > 2 ? multiply_pairs<2> : multiply_pairs<1>)(call, m, tile);
    if (paired < call.rows) multiply_rows(call, paired, call.rows - paired);
    if (call.groups % 2 == 0) return;
    Int8Call last = call;
    last.weights += (call.groups - 1) * kPairLine;
    last.k += 4 * (call.groups - 1);
    last.groups = 1;
    last.add = true;
    if (paired) multiply_rows(last, 0, paired);
}

} // namespace

extern const Int8 int8_i8mm = int8;

} // namespace hc
