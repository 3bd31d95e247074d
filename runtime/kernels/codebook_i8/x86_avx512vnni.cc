// vpermb looks up 64 centroids at once, vpdpbusd multiplies them: for 4 bits and 128 weights one shift, two lookups
// and, for each row of activations, two multiplications.
#include "codebook_i8/kernel.h"
#include "x86_avx512.h"
#include "x86_levels.h"

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

// The sums of `Rows` rows, from the values of `start` on, to out(sums).
template <int Bits, int Rows, int Tiles, class Start, class Out>
HC_INLINE void multiply_rows(const CodebookI8Call& call, const Start& start, const Out& out) {
    using L = Layout<Bits>;
    constexpr int Chains = chains<Bits, Rows, Tiles>;
    const Table<Bits> table[2] = {Table<Bits>(call.table[0]), Table<Bits>(call.table[1])};
    __m512i sum[Chains][Rows][Tiles];
    unroll<Rows * Tiles>([&](auto i) HC_LAMBDA {
        constexpr int m = i.value / Tiles, t = i.value % Tiles;
        sum[0][m][t] = start(t);
        if constexpr (Chains == 2) sum[1][m][t] = _mm512_setzero_si512();
    });
    const uint8_t* codes = call.codes;
    const uint8_t* row[Rows];
    unroll<Rows>([&](auto m) HC_LAMBDA { row[m.value] = call.q[m.value]; });
    for (size_t s = 0; s < call.segments; ++s) {
        __asm__ volatile("" ::: "memory"); // `call` is read anew: registers are for the pointers to the rows
        size_t k = call.segment[s];
        for (const uint8_t* const end = codes + call.blocks * L::block_bytes; codes != end;
             codes += L::block_bytes, k += L::period) {
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
        __m512i& total = sum[0][i.value / Tiles][i.value % Tiles];
        if constexpr (Chains == 2) total = _mm512_add_epi32(total, sum[1][i.value / Tiles][i.value % Tiles]);
        __asm__("" : "+v"(total)); // or GCC copies the sums in every step of the loop
    });
    out(sum[0]);
}

template <int Bits, int Rows, int Tiles>
void multiply_block(const CodebookI8Call& call) {
    multiply_rows<Bits, Rows, Tiles>(
        call, [](int) HC_LAMBDA { return _mm512_setzero_si512(); },
        [&](const __m512i(&sum)[Rows][Tiles]) HC_LAMBDA {
            unroll<Rows * Tiles>([&](auto i) HC_LAMBDA {
                constexpr int m = i.value / Tiles, t = i.value % Tiles;
                _mm512_storeu_si512(call.sum + m * kPair + t * kTile, sum[m][t]);
            });
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

// The sums begin without their offset.
template <int Bits, int Rows>
void level_block(const CodebookI8Call& call, const LevelsCall& to) {
    const auto start = [&](int tile) HC_LAMBDA {
        return _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_loadu_si512(to.levels->offset + kTile * tile));
    };
    multiply_rows<Bits, Rows, 2>(call, start, [&](const __m512i(&sum)[Rows][2]) HC_LAMBDA {
        const LevelRows<false> level(*to.levels, kPair);
        const auto store = [&](auto residual) HC_LAMBDA {
            const auto words = [&](auto m) HC_LAMBDA {
                const __m512 v[2] = {_mm512_cvtepi32_ps(sum[m.value][0]), _mm512_cvtepi32_ps(sum[m.value][1])};
                return level.template words<residual.value>(v, residual.value ? to.r[m.value] + to.at : nullptr);
            };
            unroll<(Rows + 1) / 2>([&](auto i) HC_LAMBDA {
                constexpr int m = 2 * i.value, next = m + 1 < Rows ? m + 1 : m;
                level.store(words(Index<m>{}), words(Index<next>{}), to.y[m] + to.at, to.y[next] + to.at);
            });
        };
        if (to.r)
            store(Index<1>{});
        else
            store(Index<0>{});
    });
}

template <int Bits>
void multiply_to_levels(const CodebookI8Call& call, const LevelsCall& to) {
    static constexpr void (*by_rows[])(const CodebookI8Call&, const LevelsCall&) = {
        level_block<Bits, 4>, level_block<Bits, 5>, level_block<Bits, 6>, level_block<Bits, 7>, level_block<Bits, 8>};
    by_rows[call.rows - kLeastRowsToLevels](call, to);
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

template <int Bits>
constexpr CodebookI8 kernels(int most_rows) {
    return {multiply<Bits>, decode<Bits>, most_rows, multiply_to_levels<Bits>};
}

} // namespace

extern const CodebookI8 codebook_i8_avx512vnni[8] = {
    kernels<1>(INT32_MAX), kernels<2>(INT32_MAX), kernels<3>(INT32_MAX), kernels<4>(INT32_MAX),
    kernels<5>(INT32_MAX), kernels<6>(INT32_MAX), kernels<7>(32),        kernels<8>(32)};

} // namespace hc
