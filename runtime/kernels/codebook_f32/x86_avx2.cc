// vpermps looks up 8 fp32 centroids at once, two of them and a blend 16; larger tables are gathered.
#include "x86_avx2.h"
#include "codebook_f32/kernel.h"

namespace hc {
namespace {

constexpr int kRows = 4; // rows of activations at once: with half tiles in pairs, 8 sums in 16 registers

template <int Bits>
HC_INLINE __m256 lookup(const float* table, __m256i index) {
    if constexpr (Bits <= 3) return _mm256_permutevar8x32_ps(_mm256_loadu_ps(table), index);
    if constexpr (Bits == 4)
        return _mm256_blendv_ps(_mm256_permutevar8x32_ps(_mm256_loadu_ps(table), index),
                                _mm256_permutevar8x32_ps(_mm256_loadu_ps(table + 8), index),
                                _mm256_castsi256_ps(_mm256_slli_epi32(index, 28)));
    return _mm256_i32gather_ps(table, _mm256_and_si256(index, _mm256_set1_epi32(255)), 4);
}

template <int Bits>
void decode(const uint8_t* codes, size_t blocks, const float* const table[2], float* panel) {
    using L = Layout<Bits>;
    for (size_t b = 0; b < blocks; ++b, codes += L::block_bytes, panel += L::period * kPair)
        unroll<4>([&](auto half) HC_LAMBDA { // half tiles: two of each tile
            unroll<L::groups>([&](auto g) HC_LAMBDA {
                const __m256i index = half_tile_indices<Bits, g.value>(codes + half.value * (kLine / 2));
                unroll<4>([&](auto kk) HC_LAMBDA {
                    _mm256_storeu_ps(panel + (4 * g.value + kk.value) * kPair + half.value * 8,
                                     lookup<Bits>(table[half.value / 2], _mm256_srli_epi32(index, 8 * kk.value)));
                });
            });
        });
}

template <int Rows>
void multiply_tile(const float* panel, size_t k, const float* x, size_t ldx, float* sum) {
    __m256 part[Rows][2];
    unroll<Rows>([&](auto m) HC_LAMBDA { part[m.value][0] = part[m.value][1] = _mm256_setzero_ps(); });
    for (; k; --k, panel += kPair, ++x) {
        const __m256 w0 = _mm256_loadu_ps(panel), w1 = _mm256_loadu_ps(panel + 8);
        unroll<Rows>([&](auto m) HC_LAMBDA {
            const __m256 xk = _mm256_broadcast_ss(x + m.value * ldx);
            part[m.value][0] = _mm256_fmadd_ps(w0, xk, part[m.value][0]);
            part[m.value][1] = _mm256_fmadd_ps(w1, xk, part[m.value][1]);
        });
    }
    unroll<2 * Rows>([&](auto i) HC_LAMBDA {
        constexpr int m = i.value / 2, half = i.value % 2;
        float* to = sum + m * kPair + 8 * half;
        _mm256_storeu_ps(to, _mm256_add_ps(_mm256_loadu_ps(to), part[m][half]));
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

extern const CodebookF32 codebook_f32_avx2[8] = {{decode<1>, nullptr}, {decode<2>, nullptr}, {decode<3>, nullptr},
                                                 {decode<4>, nullptr}, {decode<5>, nullptr}, {decode<6>, nullptr},
                                                 {decode<7>, nullptr}, {decode<8>, nullptr}};
extern const PanelF32 panel_f32_avx2 = panel_f32;

} // namespace hc
