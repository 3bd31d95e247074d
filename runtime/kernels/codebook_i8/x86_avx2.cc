// pshufb looks up 32 centroids in a table of 16, a larger table in turns. vpmaddubsw saturates where two large
// activations meet large centroids, so the product is |q - 128| * (t with the sign of q - 128), at most 2 * 128 * 127,
// and 128 times the sum of the centroids is added at the end.
#include "x86_avx2.h"
#include "codebook_i8/kernel.h"

namespace hc {
namespace {

constexpr int kRows = 4; // rows of activations at once: with half tiles in pairs, 8 sums in 16 registers

template <int Bits>
HC_INLINE __m256i lookup(const int8_t* table, __m256i index) {
    const auto sixteen = [&](int i) HC_LAMBDA {
        return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table) + i));
    };
    if constexpr (Bits <= 4) return _mm256_shuffle_epi8(sixteen(0), index);
    const __m256i low = _mm256_and_si256(index, _mm256_set1_epi8(0x0F));
    const __m256i high = _mm256_andnot_si256(_mm256_set1_epi8(0x0F), index);
    __m256i found = _mm256_setzero_si256();
    for (int i = 0; i < 1 << Bits >> 4; ++i) {
        const __m256i here = _mm256_cmpeq_epi8(high, _mm256_set1_epi8(static_cast<char>(16 * i)));
        found = _mm256_or_si256(found, _mm256_and_si256(here, _mm256_shuffle_epi8(sixteen(i), low)));
    }
    return found;
}

template <int Bits, int Rows>
void multiply_tile(const CodebookI8Call& call, int first_row, int tile) {
    using L = Layout<Bits>;
    const uint8_t* codes = call.codes + tile * kLine;
    const int8_t* table = call.table[tile];
    const __m256i ones = _mm256_set1_epi16(1);
    const __m256i offset = _mm256_set1_epi8(-128);
    __m256i sum[Rows][2], centroids[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
    const uint8_t* row[Rows];
    unroll<Rows>([&](auto m) HC_LAMBDA { row[m.value] = call.q[first_row + m.value]; });
    unroll<Rows>([&](auto m) HC_LAMBDA { sum[m.value][0] = sum[m.value][1] = _mm256_setzero_si256(); });
    for (size_t s = 0; s < call.segments; ++s) {
        size_t k = call.segment[s];
        for (size_t b = call.blocks; b; --b, codes += L::block_bytes, k += L::period)
            unroll<L::groups>([&](auto g) HC_LAMBDA {
                __m256i w[2];
                unroll<2>([&](auto half) HC_LAMBDA {
                    const __m256i index = half_tile_indices<Bits, g.value>(codes + half.value * (kLine / 2));
                    w[half.value] = lookup<Bits>(table, index);
                    const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), w[half.value]);
                    centroids[half.value] = _mm256_add_epi32(centroids[half.value], _mm256_madd_epi16(pairs, ones));
                });
                unroll<Rows>([&](auto m) HC_LAMBDA {
                    const __m256i unsigned_x = _mm256_set1_epi32(load_dword(row[m.value] + k + 4 * g.value));
                    const __m256i x = _mm256_xor_si256(unsigned_x, offset), size = _mm256_abs_epi8(x);
                    unroll<2>([&](auto half) HC_LAMBDA {
                        __m256i& to = sum[m.value][half.value];
                        const __m256i signed_w = _mm256_sign_epi8(w[half.value], x);
                        const __m256i pairs = _mm256_maddubs_epi16(size, signed_w);
                        to = _mm256_add_epi32(to, _mm256_madd_epi16(pairs, ones));
                    });
                });
            });
    }
    int32_t* out = call.sum + first_row * kPair + tile * kTile;
    unroll<2 * Rows>([&](auto i) HC_LAMBDA {
        constexpr int m = i.value / 2, half = i.value % 2;
        const __m256i total = _mm256_add_epi32(sum[m][half], _mm256_slli_epi32(centroids[half], 7));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + m * kPair + half * 8), total);
    });
}

template <int Bits>
void codebook_i8(const CodebookI8Call& call) {
    static constexpr void (*by_rows[kRows])(const CodebookI8Call&, int, int) = {
        multiply_tile<Bits, 1>, multiply_tile<Bits, 2>, multiply_tile<Bits, 3>, multiply_tile<Bits, 4>};
    for (int tile = 0; tile < call.tiles; ++tile)
        for (int m = 0; m < call.rows; m += kRows) {
            const int rows = static_cast<int>(smaller(call.rows - m, kRows));
            by_rows[rows - 1](call, m, tile);
        }
}

} // namespace

extern const CodebookI8 codebook_i8_avx2[8] = {codebook_i8<1>, codebook_i8<2>, codebook_i8<3>, codebook_i8<4>,
                                               codebook_i8<5>, codebook_i8<6>, codebook_i8<7>, codebook_i8<8>};

} // namespace hc
