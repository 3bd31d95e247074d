// usdot multiplies unsigned activations by signed centroids as they are. With two rows of activations and more, usmmla
// takes two of them and two rows of centroids, 8 k each: 32 products an instruction.
#include "codebook_i8/arm64_loop.h"

namespace hc {
namespace {

struct MixedDot {
    using Sum = int32x4_t;
    static constexpr int kRows = 4;
    static constexpr int kFlip = 0;

    HC_INLINE static void add(Sum& sum, uint8x16_t w, uint8x16_t x) {
        sum = vusdotq_s32(sum, x, vreinterpretq_s8_u8(w));
    }
    HC_INLINE static int32x4_t total(Sum sum) { return sum; }
};

constexpr int kMostRowPairs = 2; // 16 sums in 32 registers

HC_INLINE uint8x16_t eight_of_two_rows(const uint8_t* a, const uint8_t* b) {
    return vcombine_u8(vld1_u8(a), vld1_u8(b));
}

// `RowPairs` pairs of rows of activations; an odd last row is its own partner.
template <int Bits, int RowPairs>
void multiply_matrix(const CodebookI8Call& call, int first_row, int tile) {
    using L = Layout<Bits>;
    const uint8_t* codes = call.codes + tile * kLine;
    const ByteTable<Bits> table = load_table<Bits>(call.table[tile], 0);
    const uint8_t* row[2 * RowPairs];
    int32x4_t sum[RowPairs][kTile / 2] = {}; // of two rows of activations and two of centroids
    unroll<2 * RowPairs>([&](auto m) HC_LAMBDA { row[m.value] = call.q[smaller(first_row + m.value, call.rows - 1)]; });
    for (size_t s = 0; s < call.segments; ++s) {
        size_t k = call.segment[s];
        for (size_t b = call.blocks; b; --b, codes += L::block_bytes, k += L::period)
            unroll<L::groups / 2>([&](auto pair) HC_LAMBDA {
                constexpr int g = 2 * pair.value;
                int8x16_t w[kTile / 2]; // two rows of 8 k
                unroll<kQuarters>([&](auto i) HC_LAMBDA {
                    const uint8_t* lines = codes + i.value * kQuarterLine;
                    const int32x4_t first = vreinterpretq_s32_u8(table[quarter_tile_indices<Bits, g>(lines)]);
                    const int32x4_t second = vreinterpretq_s32_u8(table[quarter_tile_indices<Bits, g + 1>(lines)]);
                    w[2 * i.value] = vreinterpretq_s8_s32(vzip1q_s32(first, second));
                    w[2 * i.value + 1] = vreinterpretq_s8_s32(vzip2q_s32(first, second));
                });
                unroll<RowPairs>([&](auto p) HC_LAMBDA {
                    const size_t at = k + 4 * g;
                    const uint8x16_t x = eight_of_two_rows(row[2 * p.value] + at, row[2 * p.value + 1] + at);
                    unroll<kTile / 2>([&](auto n) HC_LAMBDA {
                        int32x4_t& to = sum[p.value][n.value];
                        to = vusmmlaq_s32(to, x, w[n.value]);
                    });
                });
            });
    }
    unroll<RowPairs * kQuarters>([&](auto i) HC_LAMBDA {
        constexpr int p = i.value / kQuarters, quarter = i.value % kQuarters;
        const int64x2_t left = vreinterpretq_s64_s32(sum[p][2 * quarter]);
        const int64x2_t right = vreinterpretq_s64_s32(sum[p][2 * quarter + 1]);
        int32_t* to = call.sum + (first_row + 2 * p) * kPair + tile * kTile + 4 * quarter;
        vst1q_s32(to, vreinterpretq_s32_s64(vzip1q_s64(left, right)));
        if (first_row + 2 * p + 1 < call.rows) vst1q_s32(to + kPair, vreinterpretq_s32_s64(vzip2q_s64(left, right)));
    });
}

template <int Bits>
void codebook_i8(const CodebookI8Call& call) {
    if constexpr (Layout<Bits>::groups == 1) // 4 k a block: no 8 to multiply at once
        return multiply_rows<MixedDot, Bits>(call);
    else if (call.rows == 1)
        return multiply_rows<MixedDot, Bits>(call);
    else
        for (int tile = 0; tile < call.tiles; ++tile)
            for (int m = 0; m < call.rows; m += 2 * kMostRowPairs)
                if (call.rows - m > 2)
                    multiply_matrix<Bits, 2>(call, m, tile);
                else
                    multiply_matrix<Bits, 1>(call, m, tile);
}

} // namespace

extern const CodebookI8 codebook_i8_i8mm[8] = {codebook_i8<1>, codebook_i8<2>, codebook_i8<3>, codebook_i8<4>,
                                               codebook_i8<5>, codebook_i8<6>, codebook_i8<7>, codebook_i8<8>};

} // namespace hc
