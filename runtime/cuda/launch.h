// Starting a kernel, and what is known of the device.
#pragma once

#include "cuda/device.h"
#include "ops/error.h"
#include "ops/sizes.h"

#ifdef __CUDACC__
#include <cuda_runtime.h>
#endif

namespace hc::cuda {

struct Grid {
    size_t x, y, z;
};

constexpr size_t kMostBlocks = 65535;       // along y and z
constexpr size_t kUnaskedShared = 48 << 10; // bytes of shared memory that a block has without asking

#ifdef __CUDACC__

inline void check(cudaError_t status, const char* what) {
    if (status != cudaSuccess) fail(HC_INTERNAL, "%s: %s", what, cudaGetErrorString(status));
}

inline size_t multiprocessors() {
    int device = 0, count = 0;
    check(cudaGetDevice(&device), "the current device");
    check(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device), "the number of multiprocessors");
    return static_cast<size_t>(count);
}

// `shared` bytes of shared memory for each block of `threads`.
template <class... Parameters>
void launch(void (*kernel)(Parameters...), Grid grid, size_t threads, size_t shared, void* stream,
            Parameters... parameters) {
    if (grid.x > INT32_MAX || grid.y > kMostBlocks || grid.z > kMostBlocks)
        fail(HC_INVALID_ARGUMENT, "a grid of %zu x %zu x %zu blocks is too large", grid.x, grid.y, grid.z);
    if (shared > kUnaskedShared)
        check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                                   static_cast<int>(shared)),
              "shared memory");
    const dim3 blocks(static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y), static_cast<unsigned>(grid.z));
    kernel<<<blocks, static_cast<unsigned>(threads), shared, static_cast<cudaStream_t>(stream)>>>(parameters...);
    check(cudaGetLastError(), "the launch");
}

#endif

} // namespace hc::cuda

#ifndef __CUDACC__
#include "emulated_launch.h"
#endif
