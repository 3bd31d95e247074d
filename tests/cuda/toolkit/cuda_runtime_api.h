// CUDA's runtime on an emulated GPU: device memory is ordinary memory, and a copy happens when its stream is waited for.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <vector>

enum cudaError_t {
    cudaSuccess = 0,
    cudaErrorMemoryAllocation = 2,
    cudaErrorCudartUnloading = 4,
    cudaErrorInvalidDevice = 101
};
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1 };
typedef struct CUstream_st* cudaStream_t;

namespace emulated_runtime {

constexpr int kDevices = 2;
inline int device = 0;
inline size_t allocations = 0, free_bytes = SIZE_MAX;
inline size_t strays = 0; // what was asked of another stream than TVM's of the current device

inline void in_order(const void* stream) {
    constexpr uintptr_t kCUDA = 2;
    strays += reinterpret_cast<uintptr_t>(stream) != 1000 * kCUDA + device;
}

struct Copy {
    void* to;
    const void* from;
    size_t bytes;
};
inline std::vector<Copy> copies;

} // namespace emulated_runtime

inline const char* cudaGetErrorString(cudaError_t error) {
    return error == cudaErrorMemoryAllocation ? "out of memory"
           : error == cudaErrorInvalidDevice  ? "invalid device ordinal"
                                              : "no error";
}
inline const char* cudaGetErrorName(cudaError_t error) { return cudaGetErrorString(error); }
inline cudaError_t cudaGetLastError() { return cudaSuccess; }

inline cudaError_t cudaGetDevice(int* device) {
    *device = emulated_runtime::device;
    return cudaSuccess;
}
inline cudaError_t cudaSetDevice(int device) {
    if (device < 0 || device >= emulated_runtime::kDevices) return cudaErrorInvalidDevice;
    emulated_runtime::device = device;
    return cudaSuccess;
}

inline cudaError_t cudaMalloc(void** memory, size_t bytes) {
    if (bytes > emulated_runtime::free_bytes || posix_memalign(memory, 256, bytes)) return cudaErrorMemoryAllocation;
    ++emulated_runtime::allocations;
    memset(*memory, 0xFF, bytes); // NaN
    return cudaSuccess;
}
inline cudaError_t cudaFree(void* memory) {
    free(memory);
    return cudaSuccess;
}
inline cudaError_t cudaMallocAsync(void** memory, size_t bytes, cudaStream_t stream) {
    emulated_runtime::in_order(stream);
    return cudaMalloc(memory, bytes);
}
inline cudaError_t cudaFreeAsync(void* memory, cudaStream_t stream) {
    emulated_runtime::in_order(stream);
    return cudaFree(memory);
}

inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
    emulated_runtime::in_order(stream);
    emulated_runtime::copies.push_back({to, from, bytes});
    return cudaSuccess;
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    emulated_runtime::in_order(stream);
    for (const emulated_runtime::Copy& copy : emulated_runtime::copies) memcpy(copy.to, copy.from, copy.bytes);
    emulated_runtime::copies.clear();
    return cudaSuccess;
}

extern "C" {
inline __attribute__((visibility("default"), used)) size_t emulated_strays() { return emulated_runtime::strays; }
inline __attribute__((visibility("default"), used)) int emulated_current() { return emulated_runtime::device; }
inline __attribute__((visibility("default"), used)) size_t emulated_allocations() { return emulated_runtime::allocations; }
inline __attribute__((visibility("default"), used)) void emulated_limit(size_t bytes) {
    emulated_runtime::free_bytes = bytes;
}
}
