// vpermb looks up 64 centroids at once, vpdpbusd multiplies them: for 4 bits and 128 weights one shift, two lookups
// and, for each row of activations, two multiplications.
#include "codebook_i8/kernel.h"
#include "x86_avx512.h"

namespace hc {
namespace {

template <int Bits>
struct Table {
    __m512i part[Bits == 8 ? 4 : Bits == 7 ? 2 : 1];

    HC_INLINE explicit Table(const int8_t* table) {
        unroll<sizeof(part) / 64>([&](auto i) HC_LAMBDA { part[i.value] = _mm512_loadu_si512(table + 64 * i.value); });
    }

    HC_INLINE __m512i operator[](__m512i index) const {
        if constexpr (Bits == 8)
            return _mm512_mask_blend_epi8(_mm512_movepi8_mask(index), _mm512_permutex2var_epi8(part[0], index, part[1]),
                                          _mm512_permutex2var_epi8(part[2], index, part[3]));
        else if constexpr (Bits == 7)
            return _mm512_permutex2var_epi8(part[0], index, part[1]);
        else
            return _mm512_permutexvar_epi8(index, part[0]);
    }
};

// A multiplication waits about four cycles for the last one into the same sum: with few rows, each has two sums.
template <int Bits, int Rows, int Tiles>
constexpr int chains = Rows* Tiles <= 4 && Layout<Bits>::groups > 1 ? 2 : 1;

// One or two rows of activations wait for the codes: ask for them early. 4 KiB ahead was best on a Zen 5.
constexpr int kPrefetch = 4096;

template <int Bits, int Rows, int Tiles>
void multiply_block(const CodebookI8Call& call) {
    using L = Layout<Bits>;
    constexpr int Chains = chains<Bits, Rows, Tiles>;
    const Table<Bits> table[2] = {Table<Bits>(call.table[0]), Table<Bits>(call.table[1])};
    __m512i sum[Chains][Rows][Tiles];
    unroll<Rows * Tiles>([&](auto i) HC_LAMBDA {
        constexpr int m = i.value / Tiles, t = i.value % Tiles;
        for (int chain = 0; chain < Chains; ++chain) sum[chain][m][t] = _mm512_setzero_si512();
    });
    const uint8_t* codes = call.codes;
    const uint8_t* row[Rows];
    unroll<Rows>([&](auto m) HC_LAMBDA { row[m.value] = call.q[m.value]; });
    for (size_t s = 0; s < call.segments; ++s) {
        size_t k = call.segment[s];
        for (size_t b = call.blocks; b; --b, codes += L::block_bytes, k += L::period) {
            if constexpr (Rows <= 2)
                for (int line = 0; line < 2 * L::lines; ++line)
                    _mm_prefetch(codes + kPrefetch + line * kLine, _MM_HINT_T0);
            unroll<L::groups>([&](auto g) HC_LAMBDA {
                __m512i w[Tiles];
                unroll<Tiles>([&](auto t) HC_LAMBDA {
                    w[t.value] = table[t.value][tile_indices<Bits, g.value>(codes + t.value * kLine)];
                });
                unroll<Rows>([&](auto m) HC_LAMBDA {
                    const __m512i x = _mm512_set1_epi32(load_dword(row[m.value] + k + 4 * g.value));
                    unroll<Tiles>([&](auto t) HC_LAMBDA {
                        __m512i& to = sum[g.value % Chains][m.value][t.value];
                        to = _mm512_dpbusd_epi32(to, x, w[t.value]);
                    });
                });
            });
        }
    }
    unroll<Rows * Tiles>([&](auto i) HC_LAMBDA {
        constexpr int m = i.value / Tiles, t = i.value % Tiles;
        __m512i total = sum[0][m][t];
        if constexpr (Chains == 2) total = _mm512_add_epi32(total, sum[1][m][t]);
        _mm512_storeu_si512(call.sum + m * kPair + t * kTile, total);
    });
}

template <int Bits>
void multiply(const CodebookI8Call& call) {
    static constexpr void (*by_rows[2][kRowBlock])(const CodebookI8Call&) = {
        {multiply_block<Bits, 1, 1>, multiply_block<Bits, 2, 1>, multiply_block<Bits, 3, 1>, multiply_block<Bits, 4, 1>,
         multiply_block<Bits, 5, 1>, multiply_block<Bits, 6, 1>, multiply_block<Bits, 7, 1>,
         multiply_block<Bits, 8, 1>},
        {multiply_block<Bits, 1, 2>, multiply_block<Bits, 2, 2>, multiply_block<Bits, 3, 2>, multiply_block<Bits, 4, 2>,
         multiply_block<Bits, 5, 2>, multiply_block<Bits, 6, 2>, multiply_block<Bits, 7, 2>,
         multiply_block<Bits, 8, 2>}};
    by_rows[call.tiles - 1][call.rows - 1](call);
}

template <int Bits>
void decode(const uint8_t* codes, size_t blocks, const int8_t* const tables[2], int8_t* weights) {
    using L = Layout<Bits>;
    const Table<Bits> table[2] = {Table<Bits>(tables[0]), Table<Bits>(tables[1])};
    for (; blocks; --blocks, codes += L::block_bytes, weights += L::groups * kPairLine)
        unroll<2 * L::groups>([&](auto i) HC_LAMBDA {
            constexpr int g = i.value / 2, t = i.value % 2;
            _mm512_storeu_si512(weights + g * kPairLine + t * kLine,
                                table[t][tile_indices<Bits, g>(codes + t * kLine)]);
        });
}

} // namespace

extern const CodebookI8 codebook_i8_avx512vnni[8] = {
    {multiply<1>, decode<1>, INT32_MAX}, {multiply<2>, decode<2>, INT32_MAX}, {multiply<3>, decode<3>, INT32_MAX},
    {multiply<4>, decode<4>, INT32_MAX}, {multiply<5>, decode<5>, INT32_MAX}, {multiply<6>, decode<6>, INT32_MAX},
    {multiply<7>, decode<7>, 32},        {multiply<8>, decode<8>, 32}};

} // namespace hc
