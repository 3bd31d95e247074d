// exp, erf, tanh and the logistic function of one float, for loops that the compiler vectorises: no branch, no
// intrinsic, no table, and every step a single rounding, so that all instruction sets agree to the bit (given
// -ffp-contract=off).
//
// The errors are the largest found against float64 over all floats (tests/runtime/test_vector_math.py), in units in
// the last place of the result.
//
// Coefficients: weighted least squares at 4,000 Chebyshev points, each point's weight multiplied by its relative error
// until the errors level out (Lawson 1961), which ends at the minimax fit. Rational fits are linearised with the
// denominator of the step before. All coefficients of the rational fits are positive and their argument is a square:
// no digits cancel.
#pragma once

#include "inline.h"

namespace hc {
namespace {

HC_INLINE float clamped(float x, float low, float high) {
    x = x < low ? low : x; // false for a NaN, which so stays
    return x > high ? high : x;
}

// x * y + z, rounded once. Without the instruction the C library computes it, slowly and with the same bits.
HC_INLINE float fused(float x, float y, float z) { return __builtin_fmaf(x, y, z); }

// Coefficients from the lowest power up.
template <int N>
HC_INLINE float polynomial(const float (&coefficients)[N], float x) {
    float sum = coefficients[N - 1];
    unroll<N - 1>([&](auto i) HC_LAMBDA { sum = fused(sum, x, coefficients[N - 2 - i.value]); });
    return sum;
}

// 2^n, n in [-126, 127].
HC_INLINE float power_of_two(uint32_t n) { return float_of((n + 127u) << 23); }

// Error at most 1.0 ulp, also where the result is denormal; infinity above ln(FLT_MAX).
// exp(x) = 2^n exp(r), r = x - n ln 2 in [-ln 2 / 2, ln 2 / 2], exp(r) = 1 + r + r^2 p(r): p to 3.1e-9 of exp.
HC_INLINE float exp_f32(float x) {
    constexpr float p[] = {0.49999994f, 0.166665196f, 0.0416683927f, 0.00836878084f, 0.00138144672f};
    x = clamped(x, -104.0f, 89.0f); // beyond, the result is 0 or infinite
    const float shifted = x * 1.44269504f + kRoundingShift;
    const float n = shifted - kRoundingShift;
    const float r = (x - n * 0.693359375f) - n * -2.12194440e-4f; // the first product is exact: ln 2 in two parts
    const uint32_t whole = bits_of(shifted) - bits_of(kRoundingShift);
    const uint32_t half = static_cast<uint32_t>(static_cast<int32_t>(whole) >> 1);
    // Two steps reach all of 2^-150 to 2^128; only the last one rounds.
    return (r * r * polynomial(p, r) + r + 1.0f) * power_of_two(half) * power_of_two(whole - half);
}

// |x|.
HC_INLINE float magnitude(float x) { return float_of(bits_of(x) & 0x7FFFFFFFu); }

// The lesser of two numbers that are not negative; a NaN is beyond all of them. As integers: one instruction
// everywhere, where a comparison of floats that keeps NaN may take three.
HC_INLINE float lesser(float x, float limit) {
    const uint32_t a = bits_of(x), b = bits_of(limit);
    return float_of(a < b ? a : b);
}

// x >= 0. Error at most 5 ulp. erf(x) = x p(x^2) / q(x^2) to 1.9e-8 up to 3.93, where float's erf is 1; beyond,
// the quotient rises above 1 and is cut.
HC_INLINE float erf_f32(float x) {
    constexpr float p[] = {1.12837911f, 0.19078432f, 0.0527903512f, 0.00377962948f, 0.000284808862f, 2.04196454e-06f};
    constexpr float q[] = {1.0f, 0.502410948f, 0.114257723f, 0.0149974786f, 0.00116521714f, 3.80040219e-05f};
    x = lesser(x, 3.98f);
    const float u = x * x;
    return lesser(x * polynomial(p, u) / polynomial(q, u), 1.0f);
}

// x >= 0. Error at most 4.5 ulp. tanh(x) = x p(x^2) / q(x^2) to 2.1e-8 up to 9.02, where float's tanh is
// 1; beyond, as in erf.
HC_INLINE float tanh_f32(float x) {
    constexpr float p[] = {1.0f, 0.133797184f, 0.00349403499f, 2.05834876e-05f, 1.33190801e-08f};
    constexpr float q[] = {1.0f, 0.467130333f, 0.0258710757f, 0.000328309368f, 7.76202342e-07f};
    x = lesser(x, 9.3f);
    const float u = x * x;
    return lesser(x * polynomial(p, u) / polynomial(q, u), 1.0f);
}

// 1 / (1 + exp(-x)). Error at most 2.5 ulp.
HC_INLINE float sigmoid_f32(float x) {
    const float small = exp_f32(x < 0 ? x : -x); // of the two exponentials the one that can't overflow
    return (x < 0 ? small : 1.0f) / (1.0f + small);
}

} // namespace
} // namespace hc
