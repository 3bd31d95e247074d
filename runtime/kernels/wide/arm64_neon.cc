// cnt counts the bits of 16 bytes at once.
#include <arm_neon.h>

#include "wide/loops.h"

namespace hc {
namespace {

constexpr size_t kLanes = 16;

HC_INLINE void near_lanes(const uint8_t* sketches, size_t pitch, const uint8_t* sketch, size_t bytes,
                          const uint8_t* limit, uint8_t* near) {
    uint8x16_t distance = vdupq_n_u8(0);
    for (size_t b = 0; b < bytes; ++b, sketches += pitch)
        distance = vqaddq_u8(distance, vcntq_u8(veorq_u8(vld1q_u8(sketches), vdupq_n_u8(sketch[b]))));
    vst1q_u8(near, vandq_u8(vcleq_u8(distance, vld1q_u8(limit)), vdupq_n_u8(1)));
}

} // namespace

extern const Wide wide_neon = {project, near_by<kLanes, near_lanes>, products, coded_products};

} // namespace hc
