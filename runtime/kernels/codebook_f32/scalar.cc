// The reference.
#include "codebook_f32/kernel.h"
#include "inline.h"
#include "layout.h"
#include "scalar_index.h"

namespace hc {
namespace {

template <int Bits>
void decode(const uint8_t* codes, size_t blocks, const float* const table[2], float* panel) {
    using L = Layout<Bits>;
    for (size_t b = 0; b < blocks; ++b, codes += L::block_bytes, panel += L::period * kPair)
        for (int n = 0; n < kPair; ++n)
            for (int g = 0; g < L::groups; ++g) {
                const uint32_t indices = four_indices<Bits>(codes + n / kTile * kLine + n % kTile * 4, g);
                for (int kk = 0; kk < 4; ++kk)
                    panel[(4 * g + kk) * kPair + n] = table[n / kTile][indices >> 8 * kk & 255];
            }
}

void panel_f32(const float* panel, size_t k, const float* x, size_t ldx, int rows, float* sum) {
    for (int m = 0; m < rows; ++m)
        for (size_t i = 0; i < k; ++i)
            for (int n = 0; n < kPair; ++n) sum[m * kPair + n] += x[m * ldx + i] * panel[i * kPair + n];
}

} // namespace

extern const CodebookF32 codebook_f32_scalar[8] = {{decode<1>, nullptr}, {decode<2>, nullptr}, {decode<3>, nullptr},
                                                   {decode<4>, nullptr}, {decode<5>, nullptr}, {decode<6>, nullptr},
                                                   {decode<7>, nullptr}, {decode<8>, nullptr}};
extern const PanelF32 panel_f32_scalar = panel_f32;

} // namespace hc
