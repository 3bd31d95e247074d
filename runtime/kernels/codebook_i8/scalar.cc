// The reference: every other kernel of this room gives the same sums.
#include "codebook_i8/kernel.h"
#include "inline.h"
#include "layout.h"
#include "scalar_index.h"

namespace hc {
namespace {

template <int Bits>
void codebook_i8(const CodebookI8Call& call) {
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

} // namespace

extern const CodebookI8 codebook_i8_scalar[8] = {codebook_i8<1>, codebook_i8<2>, codebook_i8<3>, codebook_i8<4>,
                                                 codebook_i8<5>, codebook_i8<6>, codebook_i8<7>, codebook_i8<8>};

} // namespace hc
