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

void near(const uint8_t* sketches, size_t pitch, const uint8_t* sketch, size_t bytes, const uint8_t* limit, size_t count,
          uint8_t* near) {
    size_t n = 0;
    for (; n + kLanes <= count; n += kLanes) near_lanes(sketches + n, pitch, sketch, bytes, limit + n, near + n);
    near_one_by_one(sketches + n, pitch, sketch, bytes, limit + n, count - n, near + n);
}

} // namespace

extern const Wide wide_neon = {project, near, products, coded_products};

} // namespace hc
