// udot: 16 products of unsigned bytes an instruction.
#include "codebook_i8/arm64_loop.h"

namespace hc {
namespace {

struct UnsignedDot {
    using Sum = uint32x4_t;
    static constexpr int kRows = 4;
    static constexpr int kFlip = 128;

    HC_INLINE static void add(Sum& sum, uint8x16_t w, uint8x16_t x) { sum = vdotq_u32(sum, w, x); }
    HC_INLINE static int32x4_t total(Sum sum) { return vreinterpretq_s32_u32(sum); }
};

} // namespace

extern const CodebookI8 codebook_i8_dotprod[8] = {multiply_rows<UnsignedDot, 1>, multiply_rows<UnsignedDot, 2>,
                                                  multiply_rows<UnsignedDot, 3>, multiply_rows<UnsignedDot, 4>,
                                                  multiply_rows<UnsignedDot, 5>, multiply_rows<UnsignedDot, 6>,
                                                  multiply_rows<UnsignedDot, 7>, multiply_rows<UnsignedDot, 8>};

} // namespace hc
