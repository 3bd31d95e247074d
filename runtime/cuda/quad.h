// Four neighbouring numbers along K, as a lane holds them, and their product on tensor cores.
//
// Which k a lane holds does not matter to a sum, as long as both operands agree. So a lane takes neighbouring k, which lie
// together in memory, where the instruction speaks of distant ones.
#pragma once

#include "cuda/device.h"

namespace hc::cuda {

template <class T>
struct Quad { // of fp16 or bf16, two a register
    uint32_t at[2];
};
template <>
struct Quad<float> {
    float at[4];
};

template <class T>
__device__ __forceinline__ uint32_t both(T low, T high) {
    return uint32_t{low.bits} | uint32_t{high.bits} << 16;
}

template <class T>
__device__ __forceinline__ void to_floats(const Quad<T>& q, float (&to)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) to[i] = to_float(T{static_cast<uint16_t>(q.at[i / 2] >> 16 * (i % 2))});
}
__device__ __forceinline__ void to_floats(const Quad<float>& q, float (&to)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) to[i] = q.at[i];
}

// Of 16 bytes that hold activations of type T: how many quads, and which.
template <class T>
constexpr int kQuads = 4 / sizeof(T);

template <class T>
__device__ __forceinline__ Quad<T> quad_of(const Words& w, int i) {
    return {{w.at[2 * i], w.at[2 * i + 1]}};
}
template <>
__device__ __forceinline__ Quad<float> quad_of<float>(const Words& w, int) {
    return {{__uint_as_float(w.at[0]), __uint_as_float(w.at[1]), __uint_as_float(w.at[2]), __uint_as_float(w.at[3])}};
}

// An operand of the tensor cores: fp16 and bf16 as they are, fp32 in two parts.
template <class T>
struct Operand {
    Quad<T> whole;
    __device__ __forceinline__ explicit Operand(const Quad<T>& q) : whole(q) {}
};
template <>
struct Operand<float> {
    float high[4], low[4];
    __device__ __forceinline__ explicit Operand(const Quad<float>& q) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            high[i] = rounded_tf32(q.at[i]);
            low[i] = rounded_tf32(q.at[i] - high[i]);
        }
    }
};

// sum (16 rows of W, 8 of x) += w x', over the k that the lanes hold; `w` and `below` are rows g and g + 8.
template <class T>
__device__ __forceinline__ void multiply(float (&sum)[4], const Operand<T>& w, const Operand<T>& below,
                                         const Operand<T>& x) {
    const uint32_t a[4] = {w.whole.at[0], below.whole.at[0], w.whole.at[1], below.whole.at[1]};
    mma(sum, a, x.whole.at, T{});
}

__device__ __forceinline__ void multiply_parts(float (&sum)[4], const float (&w)[4], const float (&below)[4],
                                               const float (&x)[4]) {
#pragma unroll
    for (int i = 0; i < 4; i += 2) {
        const float a[4] = {w[i], below[i], w[i + 1], below[i + 1]}, b[2] = {x[i], x[i + 1]};
        mma_tf32(sum, a, b);
    }
}

template <>
__device__ __forceinline__ void multiply<float>(float (&sum)[4], const Operand<float>& w, const Operand<float>& below,
                                                const Operand<float>& x) {
    multiply_parts(sum, w.low, below.low, x.high);
    multiply_parts(sum, w.high, below.high, x.low);
    multiply_parts(sum, w.high, below.high, x.high);
}

} // namespace hc::cuda
