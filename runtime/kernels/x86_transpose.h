#pragma once

#include <immintrin.h>

#include "inline.h"

namespace hc {
namespace {

// 16 x 16 floats in registers: words, then pairs, then quarters of the registers change places.
HC_INLINE void transpose(__m512 (&r)[16]) {
    __m512 t[16];
    unroll<8>([&](auto i) HC_LAMBDA {
        t[2 * i.value] = _mm512_unpacklo_ps(r[2 * i.value], r[2 * i.value + 1]);
        t[2 * i.value + 1] = _mm512_unpackhi_ps(r[2 * i.value], r[2 * i.value + 1]);
    });
    unroll<4>([&](auto i) HC_LAMBDA {
        constexpr int q = 4 * i.value;
        r[q] = _mm512_shuffle_ps(t[q], t[q + 2], 0x44);
        r[q + 1] = _mm512_shuffle_ps(t[q], t[q + 2], 0xEE);
        r[q + 2] = _mm512_shuffle_ps(t[q + 1], t[q + 3], 0x44);
        r[q + 3] = _mm512_shuffle_ps(t[q + 1], t[q + 3], 0xEE);
    });
    unroll<4>([&](auto i) HC_LAMBDA {
        constexpr int c = i.value;
        t[c] = _mm512_shuffle_f32x4(r[c], r[4 + c], 0x88);
        t[4 + c] = _mm512_shuffle_f32x4(r[c], r[4 + c], 0xDD);
        t[8 + c] = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0x88);
        t[12 + c] = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0xDD);
    });
    unroll<4>([&](auto i) HC_LAMBDA {
        constexpr int c = i.value;
        r[c] = _mm512_shuffle_f32x4(t[c], t[8 + c], 0x88);
        r[4 + c] = _mm512_shuffle_f32x4(t[4 + c], t[12 + c], 0x88);
        r[8 + c] = _mm512_shuffle_f32x4(t[c], t[8 + c], 0xDD);
        r[12 + c] = _mm512_shuffle_f32x4(t[4 + c], t[12 + c], 0xDD);
    });
}

} // namespace
} // namespace hc
