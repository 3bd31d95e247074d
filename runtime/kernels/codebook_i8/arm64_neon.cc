// Every 64-bit ARM: bytes are multiplied to 16 bits, and pairs of those added to 32.
#include "codebook_i8/arm64_loop.h"

namespace hc {
namespace {

struct WideningDot {
    struct Sum {
        uint32x4_t low, high; // two rows each, two sums a row
    };
    static constexpr int kRows = 2;
    static constexpr int kFlip = 128; // unsigned times unsigned: no product overflows

    HC_INLINE static void add(Sum& sum, uint8x16_t w, uint8x16_t x) {
        sum.low = vpadalq_u16(sum.low, vmull_u8(vget_low_u8(w), vget_low_u8(x)));
        sum.high = vpadalq_u16(sum.high, vmull_high_u8(w, x));
    }
    HC_INLINE static int32x4_t total(const Sum& sum) { return vreinterpretq_s32_u32(vpaddq_u32(sum.low, sum.high)); }
};

} // namespace

extern const CodebookI8 codebook_i8_neon[8] = {multiply_rows<WideningDot, 1>, multiply_rows<WideningDot, 2>,
                                               multiply_rows<WideningDot, 3>, multiply_rows<WideningDot, 4>,
                                               multiply_rows<WideningDot, 5>, multiply_rows<WideningDot, 6>,
                                               multiply_rows<WideningDot, 7>, multiply_rows<WideningDot, 8>};

} // namespace hc
