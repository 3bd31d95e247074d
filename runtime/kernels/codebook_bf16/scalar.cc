// The reference.
#include "bf16.h"
#include "codebook_bf16/kernel.h"
#include "inline.h"
#include "layout.h"
#include "scalar_index.h"

namespace hc {
namespace {

template <int Bits>
void multiply(const uint8_t* codes, size_t blocks, const uint16_t* const table[2], const float* x, size_t ldx, int rows,
              float* sum) {
    using L = Layout<Bits>;
    for (; blocks; --blocks, codes += L::block_bytes, x += L::period)
        for (int n = 0; n < kPair; ++n)
            for (int g = 0; g < L::groups; ++g) {
                const uint32_t indices = four_indices<Bits>(codes + n / kTile * kLine + n % kTile * 4, g);
                for (int kk = 0; kk < 4; ++kk) {
                    const float w = float_of(table[n / kTile][indices >> 8 * kk & 255]);
                    for (int m = 0; m < rows; ++m)
                        sum[m * kPair + n] += float_of(bf16_of(x[m * ldx + static_cast<size_t>(4 * g + kk)])) * w;
                }
            }
}

} // namespace

extern const CodebookBf16 codebook_bf16_scalar[8] = {multiply<1>, multiply<2>, multiply<3>, multiply<4>,
                                                     multiply<5>, multiply<6>, multiply<7>, multiply<8>};

} // namespace hc
