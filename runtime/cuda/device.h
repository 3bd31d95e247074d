// What kernels ask of a GPU beyond CUDA C++: one function an instruction, in the words of the PTX ISA.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "cuda/numbers.h"
#include "kernels/layout.h"

#ifndef __CUDACC__
#include "emulation.h" // the same on a CPU, for tests
#else

namespace hc::cuda {

__device__ __forceinline__ uint8_t* shared_memory() {
    extern __shared__ Words shared_words[];
    return reinterpret_cast<uint8_t*>(shared_words);
}

// 16 bytes that are read once: they take no place in the L1 cache.
__device__ __forceinline__ Words load_once(const void* from) {
    Words w;
    asm("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
        : "=r"(w.at[0]), "=r"(w.at[1]), "=r"(w.at[2]), "=r"(w.at[3])
        : "l"(from));
    return w;
}

__device__ __forceinline__ Words load_cached(const void* from) {
    Words w;
    asm("ld.global.nc.v4.u32 {%0, %1, %2, %3}, [%4];"
        : "=r"(w.at[0]), "=r"(w.at[1]), "=r"(w.at[2]), "=r"(w.at[3])
        : "l"(from));
    return w;
}

// 16 bytes into shared memory, zeros where there is nothing to copy; done once waited for.
__device__ __forceinline__ void copy_async(void* to, const void* from, bool exists) {
    const uint32_t shared = static_cast<uint32_t>(__cvta_generic_to_shared(to));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(from), "r"(exists ? 16 : 0)
                 : "memory");
}

__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Until all groups of copies are done but the last `Left`.
template <int Left>
__device__ __forceinline__ void wait_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(Left) : "memory");
}

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(Half x) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
    return y;
}
__device__ __forceinline__ float to_float(Bf16 x) { return __uint_as_float(uint32_t{x.bits} << 16); }

template <class T>
__device__ __forceinline__ T rounded(float x);
template <>
__device__ __forceinline__ float rounded<float>(float x) {
    return x;
}
template <>
__device__ __forceinline__ Half rounded<Half>(float x) {
    Half y;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
}
template <>
__device__ __forceinline__ Bf16 rounded<Bf16>(float x) {
    Bf16 y;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
}

// To 11 significant bits, halves away from 0.
__device__ __forceinline__ float rounded_tf32(float x) {
    uint32_t y;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(y) : "f"(x));
    return __uint_as_float(y);
}

// c (16, 8) += a (16, 16) b (16, 8). Of a lane with group g = lane / 4 and thread t = lane % 4 are
//     a[0], a[2]: row g, columns 2t and 2t + 8, with the next one;  a[1], a[3]: row g + 8
//     b[0], b[1]: column g, rows 2t and 2t + 8, with the next one
//     c[0], c[1]: row g, columns 2t and 2t + 1;  c[2], c[3]: row g + 8
#define HC_MMA(type)                                                                                                   \
    asm("mma.sync.aligned.m16n8k16.row.col.f32." type "." type                                                         \
        ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"                                         \
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                                                               \
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))

__device__ __forceinline__ void mma(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Half) {
    HC_MMA("f16");
}
__device__ __forceinline__ void mma(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Bf16) {
    HC_MMA("bf16");
}
#undef HC_MMA

// c (16, 8) += a (16, 8) b (8, 8) of TF32 numbers: as above, with
//     a[0], a[2]: row g, columns t and t + 4;  a[1], a[3]: row g + 8;  b[0], b[1]: column g, rows t and t + 4
__device__ __forceinline__ void mma_tf32(float (&c)[4], const float (&a)[4], const float (&b)[2]) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(__float_as_uint(a[0])), "r"(__float_as_uint(a[1])), "r"(__float_as_uint(a[2])),
          "r"(__float_as_uint(a[3])), "r"(__float_as_uint(b[0])), "r"(__float_as_uint(b[1])));
}

} // namespace hc::cuda
#endif
