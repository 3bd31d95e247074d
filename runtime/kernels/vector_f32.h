// Registers of floats, one type an instruction set, for kernels that are the same loops over each of them.
#pragma once

#include "inline.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace hc {
namespace {

// fused(a, b, c) is a * b + c, rounded once.
#ifdef __AVX2__
struct Ymm {
    using Type = __m256;
    static constexpr int lanes = 8;
    static HC_INLINE Type zero() { return _mm256_setzero_ps(); }
    static HC_INLINE Type load(const float* from) { return _mm256_loadu_ps(from); }
    static HC_INLINE Type broadcast(const float* from) { return _mm256_broadcast_ss(from); }
    static HC_INLINE Type fused(Type a, Type b, Type c) { return _mm256_fmadd_ps(a, b, c); }
    static HC_INLINE Type sum(Type a, Type b) { return _mm256_add_ps(a, b); }
    static HC_INLINE void store(float* to, Type a) { _mm256_storeu_ps(to, a); }
};
#endif

#ifdef __AVX512F__
struct Zmm {
    using Type = __m512;
    static constexpr int lanes = 16;
    static HC_INLINE Type zero() { return _mm512_setzero_ps(); }
    static HC_INLINE Type load(const float* from) { return _mm512_loadu_ps(from); }
    static HC_INLINE Type broadcast(const float* from) { return _mm512_set1_ps(*from); }
    static HC_INLINE Type fused(Type a, Type b, Type c) { return _mm512_fmadd_ps(a, b, c); }
    static HC_INLINE Type sum(Type a, Type b) { return _mm512_add_ps(a, b); }
    static HC_INLINE void store(float* to, Type a) { _mm512_storeu_ps(to, a); }
};
#endif

#ifdef __aarch64__
struct Quad {
    using Type = float32x4_t;
    static constexpr int lanes = 4;
    static HC_INLINE Type zero() { return vdupq_n_f32(0); }
    static HC_INLINE Type load(const float* from) { return vld1q_f32(from); }
    static HC_INLINE Type broadcast(const float* from) { return vld1q_dup_f32(from); }
    static HC_INLINE Type fused(Type a, Type b, Type c) { return vfmaq_f32(c, a, b); }
    static HC_INLINE Type sum(Type a, Type b) { return vaddq_f32(a, b); }
    static HC_INLINE void store(float* to, Type a) { vst1q_f32(to, a); }
};
#endif

} // namespace
} // namespace hc
