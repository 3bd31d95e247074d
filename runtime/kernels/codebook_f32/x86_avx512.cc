// vpermps looks up 16 fp32 centroids at once and ignores the index bits above them; larger tables take a tree of
// two-register lookups.
#include "x86_avx512.h"
#include "codebook_f32/kernel.h"

namespace hc {
namespace {

// Entries [First, First + 2^Bits) of a table that stays in memory: the compiler keeps what fits in registers.
template <int Bits, int First = 0>
HC_INLINE __m512 lookup(const float* table, __m512i index) {
    const __m512 here = _mm512_loadu_ps(table + First);
    if constexpr (Bits <= 4) {
        return _mm512_permutexvar_ps(index, here);
    } else if constexpr (Bits == 5) {
        return _mm512_permutex2var_ps(here, index, _mm512_loadu_ps(table + First + 16));
    } else {
        constexpr int top = 1 << (Bits - 1);
        return _mm512_mask_blend_ps(_mm512_test_epi32_mask(index, _mm512_set1_epi32(top)),
                                    lookup<Bits - 1, First>(table, index), lookup<Bits - 1, First + top>(table, index));
    }
}

// body(k, w[2]): the 32 weights of each k of a block in turn.
template <int Bits, class Body>
HC_INLINE void each_k(const uint8_t* codes, const float* const table[2], Body&& body) {
    unroll<Layout<Bits>::groups>([&](auto g) HC_LAMBDA {
        const __m512i index[2] = {tile_indices<Bits, g.value>(codes), tile_indices<Bits, g.value>(codes + kLine)};
        unroll<4>([&](auto kk) HC_LAMBDA {
            const __m512 w[2] = {lookup<Bits>(table[0], shifted<8 * kk.value>(index[0])),
                                 lookup<Bits>(table[1], shifted<8 * kk.value>(index[1]))};
            body(Index<4 * g.value + kk.value>{}, w);
        });
    });
}

template <int Bits>
void decode(const uint8_t* codes, size_t blocks, const float* const tables[2], float* panel) {
    using L = Layout<Bits>;
    const float* const table[2] = {tables[0], tables[1]};
    for (size_t b = 0; b < blocks; ++b, codes += L::block_bytes, panel += L::period * kPair)
        each_k<Bits>(codes, table, [&](auto k, const __m512* w) HC_LAMBDA {
            _mm512_storeu_ps(panel + k.value * kPair, w[0]);
            _mm512_storeu_ps(panel + k.value * kPair + kTile, w[1]);
        });
}

template <int Rows, int Chains>
HC_INLINE void clear(__m512 (&part)[Chains][Rows][2]) {
    unroll<Chains * Rows>([&](auto i) HC_LAMBDA {
        constexpr int c = i.value / Rows, m = i.value % Rows;
        part[c][m][0] = part[c][m][1] = _mm512_setzero_ps();
    });
}

template <int Rows, int Chains>
HC_INLINE void add_to(float* sum, const __m512 (&part)[Chains][Rows][2]) {
    unroll<2 * Rows>([&](auto i) HC_LAMBDA {
        constexpr int m = i.value / 2, t = i.value % 2;
        float* to = sum + m * kPair + t * kTile;
        __m512 total = _mm512_loadu_ps(to);
        unroll<Chains>([&](auto c) HC_LAMBDA { total = _mm512_add_ps(total, part[c.value][m][t]); });
        _mm512_storeu_ps(to, total);
    });
}

// A multiplication waits about four cycles for the last one into the same sum: few rows take more sums each.
template <int Rows>
constexpr int chains = Rows == 1   ? 4
                       : Rows <= 3 ? 2
                                   : 1;

template <int Bits, int Rows>
void multiply(const uint8_t* codes, size_t blocks, const float* const tables[2], const float* x, size_t ldx,
              float* sum) {
    using L = Layout<Bits>;
    constexpr int Chains = chains<Rows>;
    const float* const table[2] = {tables[0], tables[1]};
    __m512 part[Chains][Rows][2];
    clear(part);
    for (; blocks; --blocks, codes += L::block_bytes, x += L::period)
        each_k<Bits>(codes, table, [&](auto k, const __m512* w) HC_LAMBDA {
            unroll<Rows>([&](auto m) HC_LAMBDA {
                const __m512 xk = _mm512_set1_ps(x[m.value * ldx + k.value]);
                __m512(&to)[2] = part[k.value % Chains][m.value];
                to[0] = _mm512_fmadd_ps(w[0], xk, to[0]);
                to[1] = _mm512_fmadd_ps(w[1], xk, to[1]);
            });
        });
    add_to<Rows, Chains>(sum, part);
}

template <int Bits>
void multiply_rows(const uint8_t* codes, size_t blocks, const float* const table[2], const float* x, size_t ldx,
                   int rows, float* sum) {
    static constexpr void (*by_rows[kRowBlock])(const uint8_t*, size_t, const float* const[2], const float*, size_t,
                                                float*) = {multiply<Bits, 1>, multiply<Bits, 2>, multiply<Bits, 3>,
                                                           multiply<Bits, 4>, multiply<Bits, 5>, multiply<Bits, 6>,
                                                           multiply<Bits, 7>, multiply<Bits, 8>};
    by_rows[rows - 1](codes, blocks, table, x, ldx, sum);
}

template <int Rows>
void multiply_panel(const float* panel, size_t k, const float* x, size_t ldx, float* sum) {
    __m512 part[1][Rows][2];
    clear(part);
    for (; k; --k, panel += kPair, ++x) {
        const __m512 w0 = _mm512_loadu_ps(panel), w1 = _mm512_loadu_ps(panel + kTile);
        unroll<Rows>([&](auto m) HC_LAMBDA {
            const __m512 xk = _mm512_set1_ps(x[m.value * ldx]);
            part[0][m.value][0] = _mm512_fmadd_ps(w0, xk, part[0][m.value][0]);
            part[0][m.value][1] = _mm512_fmadd_ps(w1, xk, part[0][m.value][1]);
        });
    }
    add_to<Rows, 1>(sum, part);
}

void panel_f32(const float* panel, size_t k, const float* x, size_t ldx, int rows, float* sum) {
    static constexpr void (*by_rows[kRowBlock])(const float*, size_t, const float*, size_t, float*) = {
        multiply_panel<1>, multiply_panel<2>, multiply_panel<3>, multiply_panel<4>,
        multiply_panel<5>, multiply_panel<6>, multiply_panel<7>, multiply_panel<8>};
    by_rows[rows - 1](panel, k, x, ldx, sum);
}

} // namespace

extern const CodebookF32 codebook_f32_avx512[8] = {{decode<1>, multiply_rows<1>}, {decode<2>, multiply_rows<2>},
                                                   {decode<3>, multiply_rows<3>}, {decode<4>, multiply_rows<4>},
                                                   {decode<5>, multiply_rows<5>}, {decode<6>, multiply_rows<6>},
                                                   {decode<7>, multiply_rows<7>}, {decode<8>, multiply_rows<8>}};
extern const PanelF32 panel_f32_avx512 = panel_f32;

} // namespace hc
