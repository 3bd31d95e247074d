#include <arm_neon.h>

#include "attention/loops.h"

namespace hc {
namespace {

struct Quad {
    using type = float32x4_t;
    static constexpr int width = 4;
    static HC_INLINE type zero() { return vdupq_n_f32(0); }
    static HC_INLINE type load(const float* from) { return vld1q_f32(from); }
    static HC_INLINE type broadcast(const float* from) { return vld1q_dup_f32(from); }
    static HC_INLINE type add_product(type sum, type a, type b) { return vfmaq_f32(sum, a, b); }
    static HC_INLINE void store(float* to, type v) { vst1q_f32(to, v); }
};

} // namespace

// 24 sums, 4 registers of queries, one of keys: 29 of 32 registers.
extern const Attention attention_neon = attention_loops<PlainTranspose, RegisterProduct<Quad, 6, 4>>;

} // namespace hc
