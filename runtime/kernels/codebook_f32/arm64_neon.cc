// tbl looks up the four bytes of 16 fp32 centroids, each in a table of its own; zips put them together.
#include "arm64_neon.h"
#include "codebook_f32/kernel.h"

namespace hc {
namespace {

constexpr int kRows = 4; // rows of activations at once: 16 sums in 32 registers

// Byte i of every entry, i < 4.
template <int Bits>
struct FloatTable {
    ByteTable<Bits> byte[4];

    HC_INLINE explicit FloatTable(const float* table) {
        unroll<ByteTable<Bits>::registers>([&](auto r) HC_LAMBDA {
            const uint8x16x4_t bytes = vld4q_u8(reinterpret_cast<const uint8_t*>(table + 16 * r.value));
            unroll<4>([&](auto i) HC_LAMBDA { byte[i.value].part[r.value] = bytes.val[i.value]; });
        });
    }
};

// 4 k x 4 rows: the bytes of 4 rows x 4 k.
HC_INLINE uint8x16_t transposed(uint8x16_t index) {
    static constexpr uint8_t order[16] = {0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15};
    return vqtbl1q_u8(index, vld1q_u8(order));
}

template <int Bits>
void decode_tile(const uint8_t* codes, size_t blocks, const float* entries, float* panel) {
    using L = Layout<Bits>;
    const FloatTable<Bits> table(entries);
    for (; blocks; --blocks, codes += L::block_bytes, panel += L::period * kPair)
        unroll<L::groups * kQuarters>([&](auto i) HC_LAMBDA {
            constexpr int g = i.value / kQuarters, quarter = i.value % kQuarters;
            const uint8x16_t index = transposed(quarter_tile_indices<Bits, g>(codes + quarter * kQuarterLine));
            const uint8x16x2_t low = vzipq_u8(table.byte[0][index], table.byte[1][index]);
            const uint8x16x2_t high = vzipq_u8(table.byte[2][index], table.byte[3][index]);
            unroll<2>([&](auto half) HC_LAMBDA {
                const uint16x8x2_t two_k =
                    vzipq_u16(vreinterpretq_u16_u8(low.val[half.value]), vreinterpretq_u16_u8(high.val[half.value]));
                float* to = panel + (4 * g + 2 * half.value) * kPair + quarter * 4;
                vst1q_f32(to, vreinterpretq_f32_u16(two_k.val[0]));
                vst1q_f32(to + kPair, vreinterpretq_f32_u16(two_k.val[1]));
            });
        });
}

template <int Bits>
void decode(const uint8_t* codes, size_t blocks, const float* const table[2], float* panel) {
    for (int tile = 0; tile < 2; ++tile)
        decode_tile<Bits>(codes + tile * kLine, blocks, table[tile], panel + tile * kTile);
}

template <int Rows>
void multiply_tile(const float* panel, size_t k, const float* x, size_t ldx, float* sum) {
    float32x4_t part[Rows][4];
    unroll<4 * Rows>([&](auto i) HC_LAMBDA { part[i.value / 4][i.value % 4] = vdupq_n_f32(0); });
    for (; k; --k, panel += kPair, ++x) {
        const float32x4x4_t w = vld1q_f32_x4(panel);
        unroll<Rows>([&](auto m) HC_LAMBDA {
            const float32x4_t xk = vld1q_dup_f32(x + m.value * ldx);
            unroll<4>([&](auto i) HC_LAMBDA {
                part[m.value][i.value] = vfmaq_f32(part[m.value][i.value], w.val[i.value], xk);
            });
        });
    }
    unroll<4 * Rows>([&](auto i) HC_LAMBDA {
        constexpr int m = i.value / 4, quarter = i.value % 4;
        float* to = sum + m * kPair + quarter * 4;
        vst1q_f32(to, vaddq_f32(vld1q_f32(to), part[m][quarter]));
    });
}

void panel_f32(const float* panel, size_t k, const float* x, size_t ldx, int rows, float* sum) {
    static constexpr void (*by_rows[kRows])(const float*, size_t, const float*, size_t, float*) = {
        multiply_tile<1>, multiply_tile<2>, multiply_tile<3>, multiply_tile<4>};
    for (int tile = 0; tile < 2; ++tile)
        for (int m = 0; m < rows; m += kRows)
            by_rows[smaller(rows - m, kRows) - 1](panel + tile * kTile, k, x + m * ldx, ldx,
                                                  sum + m * kPair + tile * kTile);
}

} // namespace

extern const CodebookF32 codebook_f32_neon[8] = {{decode<1>, nullptr}, {decode<2>, nullptr}, {decode<3>, nullptr},
                                                 {decode<4>, nullptr}, {decode<5>, nullptr}, {decode<6>, nullptr},
                                                 {decode<7>, nullptr}, {decode<8>, nullptr}};
extern const PanelF32 panel_f32_neon = panel_f32;

} // namespace hc
