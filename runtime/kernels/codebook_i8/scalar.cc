// The reference: every other kernel of this room gives the same sums.
#include "codebook_i8/kernel.h"
#include "inline.h"
#include "layout.h"
#include "scalar_index.h"

namespace hc {
namespace {

template <int Bits>
void multiply(const CodebookI8Call& call) {
    using L = Layout<Bits>;
    for (int m = 0; m < call.rows; ++m)
        for (int n = 0; n < call.tiles * kTile; ++n) {
            const uint8_t* row = call.codes + n / kTile * kLine + n % kTile * 4;
            const int8_t* table = call.table[n / kTile];
            int32_t sum = 0;
            for (size_t s = 0; s < call.segments; ++s) {
                const uint8_t* q = call.q[m] + call.segment[s];
                for (size_t b = 0; b < call.blocks; ++b, row += L::block_bytes)
                    for (int g = 0; g < L::groups; ++g) {
                        const uint32_t indices = four_indices<Bits>(row, g);
                        for (int kk = 0; kk < 4; ++kk) sum += *q++ * table[indices >> 8 * kk & 255];
                    }
            }
            call.sum[m * kPair + n] = sum;
        }
}

template <int Bits>
void decode(const uint8_t* codes, size_t blocks, const int8_t* const table[2], int8_t* weights) {
    using L = Layout<Bits>;
    for (; blocks; --blocks, codes += L::block_bytes)
        for (int g = 0; g < L::groups; ++g)
            for (int n = 0; n < kPair; ++n) {
                const uint32_t indices = four_indices<Bits>(codes + n / kTile * kLine + n % kTile * 4, g);
                for (int kk = 0; kk < 4; ++kk) *weights++ = table[n / kTile][indices >> 8 * kk & 255];
            }
}

} // namespace

extern const CodebookI8 codebook_i8_scalar[8] = {
    {multiply<1>, decode<1>, 1}, {multiply<2>, decode<2>, 1}, {multiply<3>, decode<3>, 1}, {multiply<4>, decode<4>, 1},
    {multiply<5>, decode<5>, 1}, {multiply<6>, decode<6>, 1}, {multiply<7>, decode<7>, 1}, {multiply<8>, decode<8>, 1}};

} // namespace hc
