// A word of indices is two of a row's neighbouring bytes; its lower five bits find a centroid by vpermw, and the same
// after a shift by a byte. So vdpbf16ps takes pairs of k: 0 and 2, then 1 and 3 of every group.
#include "codebook_bf16/kernel.h"
#include "x86_avx512.h"

namespace hc {
namespace {

constexpr size_t kChunk = 256; // k whose activations are rounded at a time: whole blocks of any width

// Entries [First, First + 2^Bits) of the table, by the lower bits of each word of `index`.
template <int Bits, int First = 0>
HC_INLINE __m512i lookup(const uint16_t* table, __m512i index) {
    const __m512i here = _mm512_loadu_si512(table + First);
    if constexpr (Bits <= 5) {
        return _mm512_permutexvar_epi16(index, here);
    } else if constexpr (Bits == 6) {
        return _mm512_permutex2var_epi16(here, index, _mm512_loadu_si512(table + First + 32));
    } else {
        constexpr int half = 1 << (Bits - 1);
        return _mm512_mask_blend_epi16(_mm512_test_epi16_mask(index, _mm512_set1_epi16(half)),
                                       lookup<Bits - 1, First>(table, index),
                                       lookup<Bits - 1, First + half>(table, index));
    }
}

// `count` activations of each row, rounded, in the order 0, 2, 1, 3 of every four.
void round_rows(const float* x, size_t ldx, int rows, size_t count, uint16_t (*to)[kChunk]) {
    for (int m = 0; m < rows; ++m)
        for (size_t i = 0; i < count; i += 16) {
            const size_t left = count - i;
            const __mmask16 mask = static_cast<__mmask16>(left < 16 ? (1u << left) - 1 : 0xFFFFu);
            const __m512 values = _mm512_maskz_loadu_ps(mask, x + m * ldx + i);
            const __m256bh rounded = _mm512_cvtneps_pbh(_mm512_permute_ps(values, 0xD8));
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(to[m] + i), (__m256i)rounded);
        }
}

// A multiplication waits about six cycles for the last one into the same sum: few rows take more sums each.
template <int Rows>
constexpr int chains = Rows <= 4 ? 2 : 1;

template <int Bits, int Rows>
void multiply_chunk(const uint8_t* codes, size_t blocks, const uint16_t* const tables[2], const uint16_t (*x)[kChunk],
                    float* sum) {
    using L = Layout<Bits>;
    constexpr int Chains = chains<Rows>;
    const uint16_t* const table[2] = {tables[0], tables[1]};
    __m512 part[Chains][Rows][2];
    unroll<Chains * Rows>([&](auto i) HC_LAMBDA {
        part[i.value / Rows][i.value % Rows][0] = part[i.value / Rows][i.value % Rows][1] = _mm512_setzero_ps();
    });
    for (size_t k = 0; blocks; --blocks, codes += L::block_bytes, k += L::period)
        unroll<L::groups>([&](auto g) HC_LAMBDA {
            const __m512i index[2] = {tile_indices<Bits, g.value>(codes), tile_indices<Bits, g.value>(codes + kLine)};
            unroll<2>([&](auto pair) HC_LAMBDA {
                const __m512i w[2] = {lookup<Bits>(table[0], _mm512_srli_epi16(index[0], 8 * pair.value)),
                                      lookup<Bits>(table[1], _mm512_srli_epi16(index[1], 8 * pair.value))};
                unroll<Rows>([&](auto m) HC_LAMBDA {
                    const __m512i xk = _mm512_set1_epi32(load_dword(x[m.value] + k + 4 * g.value + 2 * pair.value));
                    unroll<2>([&](auto t) HC_LAMBDA {
                        __m512& to = part[pair.value % Chains][m.value][t.value];
                        to = _mm512_dpbf16_ps(to, (__m512bh)w[t.value], (__m512bh)xk);
                    });
                });
            });
        });
    unroll<2 * Rows>([&](auto i) HC_LAMBDA {
        constexpr int m = i.value / 2, t = i.value % 2;
        float* to = sum + m * kPair + t * kTile;
        __m512 total = _mm512_loadu_ps(to);
        unroll<Chains>([&](auto c) HC_LAMBDA { total = _mm512_add_ps(total, part[c.value][m][t]); });
        _mm512_storeu_ps(to, total);
    });
}

template <int Bits>
void multiply(const uint8_t* codes, size_t blocks, const uint16_t* const table[2], const float* x, size_t ldx, int rows,
              float* sum) {
    using L = Layout<Bits>;
    static constexpr void (*by_rows[kRowBlock])(const uint8_t*, size_t, const uint16_t* const[2],
                                                const uint16_t(*)[kChunk], float*) = {
        multiply_chunk<Bits, 1>, multiply_chunk<Bits, 2>, multiply_chunk<Bits, 3>, multiply_chunk<Bits, 4>,
        multiply_chunk<Bits, 5>, multiply_chunk<Bits, 6>, multiply_chunk<Bits, 7>, multiply_chunk<Bits, 8>};
    alignas(64) uint16_t rounded[kRowBlock][kChunk];
    while (blocks) {
        const size_t now = smaller(blocks, kChunk / L::period);
        round_rows(x, ldx, rows, now * L::period, rounded);
        by_rows[rows - 1](codes, now, table, rounded, sum);
        codes += now * L::block_bytes;
        x += now * L::period;
        blocks -= now;
    }
}

} // namespace

extern const CodebookBf16 codebook_bf16_avx512bf16[8] = {multiply<1>, multiply<2>, multiply<3>, multiply<4>,
                                                         multiply<5>, multiply<6>, multiply<7>, multiply<8>};

} // namespace hc
