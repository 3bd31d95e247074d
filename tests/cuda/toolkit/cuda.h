// The words of CUDA C++ that TVM's kernels use, on an emulated GPU.
#pragma once

#include "cuda/launch.h"

#define __shared__ static // one block runs at a time

using hc::cuda::__syncthreads;
using hc::cuda::blockIdx;
using hc::cuda::threadIdx;

inline float max(float a, float b) { return fmaxf(a, b); }
inline float min(float a, float b) { return fminf(a, b); }
template <class T>
T max(T a, T b) { return a < b ? b : a; }
template <class T>
T min(T a, T b) { return b < a ? b : a; }
inline float rsqrtf(float x) { return 1 / sqrtf(x); }

// Of whole warps: lanes that have left are not known.
inline unsigned __activemask() { return ~0u; }

inline float __shfl_from(float value, unsigned lane) {
    auto& warp = hc::cuda::emulated::warp();
    memcpy(&warp.given[hc::cuda::emulated::lane()][0], &value, sizeof value);
    hc::cuda::emulated::wait(warp.barrier);
    memcpy(&value, &warp.given[lane][0], sizeof value);
    hc::cuda::emulated::wait(warp.barrier);
    return value;
}
inline float __shfl_down_sync(unsigned, float value, unsigned delta, unsigned width) {
    const unsigned lane = hc::cuda::emulated::lane();
    return __shfl_from(value, lane % width + delta < width ? lane + delta : lane);
}
inline float __shfl_sync(unsigned, float value, unsigned from, unsigned width) {
    const unsigned lane = hc::cuda::emulated::lane();
    return __shfl_from(value, lane - lane % width + from % width);
}

#define HC_VECTORS(type, of)                                                      \
    struct type##2 { of x, y; };                                                  \
    struct type##3 { of x, y, z; };                                               \
    struct type##4 { of x, y, z, w; };                                            \
    inline type##2 make_##type##2(of x, of y) { return {x, y}; }                  \
    inline type##3 make_##type##3(of x, of y, of z) { return {x, y, z}; }         \
    inline type##4 make_##type##4(of x, of y, of z, of w) { return {x, y, z, w}; }
HC_VECTORS(float, float)
HC_VECTORS(int, int)
HC_VECTORS(uint, unsigned)
HC_VECTORS(ushort, unsigned short)
HC_VECTORS(longlong, long long)
#undef HC_VECTORS
