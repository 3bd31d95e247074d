// Everything an ISA's translation unit needs from outside, with internal linkage: a function that is compiled with
// -mavx512* and shared by the linker would run on a CPU without it. For the same reason no standard header with
// inline functions is included there.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define HC_INLINE inline __attribute__((always_inline))
#define HC_LAMBDA __attribute__((always_inline))

namespace hc {
namespace {

template <int I>
struct Index {
    static constexpr int value = I;
};

// body(Index<0>{}), ..., body(Index<N - 1>{}): a loop whose counter is a constant. An array of sums that is indexed by
// constants alone lives in registers; one variable index, and GCC keeps it in memory.
template <int N, int I = 0, class Body>
HC_INLINE void unroll(Body&& body) {
    if constexpr (I < N) {
        body(Index<I>{});
        unroll<N, I + 1>(body);
    }
}

HC_INLINE int32_t load_dword(const void* from) {
    int32_t dword;
    memcpy(&dword, from, sizeof dword);
    return dword;
}

HC_INLINE uint32_t bits_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

HC_INLINE float float_of(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

// x + kRoundingShift, |x| < 2^22, has a last bit of one: the addition itself rounds, half to even.
constexpr float kRoundingShift = 12582912.0f; // 1.5 * 2^23

constexpr size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

} // namespace
} // namespace hc
