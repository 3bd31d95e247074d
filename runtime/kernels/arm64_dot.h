// Products of a quarter tile, 4 rows x 4 k, with four unsigned activations: 4 sums. How, the compiler's flags for the
// instruction set decide.
#pragma once

#include "arm64_neon.h"

namespace hc {
namespace {

// kFlip: where the instruction wants unsigned weights they are taken as w + 128, bit 7 flipped, and 128 times the sum
// of the activations is missing from the sum in the end.
#if defined(__ARM_FEATURE_MATMUL_INT8)

// usdot multiplies unsigned activations by signed weights as they are.
struct Dot {
    static constexpr int kRows = 4; // rows of activations at once: 16 sums in 32 registers
    static constexpr uint8_t kFlip = 0;
    int32x4_t sum = vdupq_n_s32(0);

    HC_INLINE void add(uint8x16_t w, uint8x16_t x) { sum = vusdotq_s32(sum, x, vreinterpretq_s8_u8(w)); }
    HC_INLINE int32x4_t total() const { return sum; }
};

#elif defined(__ARM_FEATURE_DOTPROD)

struct Dot {
    static constexpr int kRows = 4;
    static constexpr uint8_t kFlip = 128;
    uint32x4_t sum = vdupq_n_u32(0);

    HC_INLINE void add(uint8x16_t w, uint8x16_t x) { sum = vdotq_u32(sum, w, x); }
    HC_INLINE int32x4_t total() const { return vreinterpretq_s32_u32(sum); }
};

#else

// Bytes are multiplied to 16 bits, and pairs of those added to 32: unsigned, no product overflows.
struct Dot {
    static constexpr int kRows = 2;
    static constexpr uint8_t kFlip = 128;
    uint32x4_t low = vdupq_n_u32(0), high = vdupq_n_u32(0); // two rows each, two sums a row

    HC_INLINE void add(uint8x16_t w, uint8x16_t x) {
        low = vpadalq_u16(low, vmull_u8(vget_low_u8(w), vget_low_u8(x)));
        high = vpadalq_u16(high, vmull_high_u8(w, x));
    }
    HC_INLINE int32x4_t total() const { return vreinterpretq_s32_u32(vpaddq_u32(low, high)); }
};

#endif

HC_INLINE uint8x16_t flipped(uint8x16_t w) { return Dot::kFlip ? veorq_u8(w, vdupq_n_u8(Dot::kFlip)) : w; }

// 128 times the sum of `count` activations, a multiple of 4, if that is what the sums miss.
inline int32_t flip_offset(const uint8_t* q, size_t count) {
    if (!Dot::kFlip) return 0;
    uint32x4_t sum = vdupq_n_u32(0);
    size_t i = 0;
    for (; i + 16 <= count; i += 16) sum = vpadalq_u16(sum, vpaddlq_u8(vld1q_u8(q + i)));
    for (; i < count; i += 4) {
        const uint8x8_t four = vreinterpret_u8_s32(vset_lane_s32(load_dword(q + i), vdup_n_s32(0), 0));
        sum = vaddw_u16(sum, vpaddl_u8(four));
    }
    return static_cast<int32_t>(128 * vaddvq_u32(sum));
}

// The sums of one tile. Weights come as flipped() makes them.
template <int Rows>
struct QuarterTileSums {
    Dot dot[Rows][kQuarters];

    // The products of a group with the activations at row[m] + k.
    HC_INLINE void add(const uint8x16_t (&w)[kQuarters], const uint8_t* const (&row)[Rows], size_t k) {
        unroll<Rows>([&](auto m) HC_LAMBDA {
            const uint8x16_t x = vreinterpretq_u8_s32(vdupq_n_s32(load_dword(row[m.value] + k)));
            unroll<kQuarters>([&](auto i) HC_LAMBDA { dot[m.value][i.value].add(w[i.value], x); });
        });
    }

    // To `out` (rows, 32), less offset[m], or added to what is there.
    HC_INLINE void store(int32_t* out, const int32_t (&offset)[Rows], bool add) const {
        unroll<Rows * kQuarters>([&](auto i) HC_LAMBDA {
            constexpr int m = i.value / kQuarters, quarter = i.value % kQuarters;
            int32_t* to = out + m * kPair + quarter * 4;
            const int32x4_t total = vsubq_s32(dot[m][quarter].total(), vdupq_n_s32(offset[m]));
            vst1q_s32(to, add ? vaddq_s32(total, vld1q_s32(to)) : total);
        });
    }
};

} // namespace
} // namespace hc
