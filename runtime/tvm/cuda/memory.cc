#include "tvm/cuda/memory.h"

namespace hc::tvm::cuda {

DeviceScope::DeviceScope(int device) : device_(device) {
    check(cudaGetDevice(&before_), "the current device");
    if (before_ != device_) check(cudaSetDevice(device_), "the device of the arguments");
}

DeviceScope::~DeviceScope() {
    if (before_ != device_) cudaSetDevice(before_);
}

const void* Constants::on(int device, const void* host, size_t bytes, cudaStream_t stream) {
    if (!bytes) return nullptr;
    const std::lock_guard<std::mutex> lock(mutex_);
    std::unique_ptr<void, Free>& held = held_[{device, host}];
    if (held) return held.get();
    void* memory = nullptr;
    check(cudaMalloc(&memory, bytes), "memory for constants");
    std::unique_ptr<void, Free> copy(memory);
    check(cudaMemcpyAsync(memory, host, bytes, cudaMemcpyHostToDevice, stream), "copying constants");
    check(cudaStreamSynchronize(stream), "copying constants");
    held = std::move(copy);
    return held.get();
}

Workspace::Workspace(size_t bytes, cudaStream_t stream) : stream_(stream) {
    if (bytes && cudaMallocAsync(&data_, bytes, stream) != cudaSuccess) {
        data_ = nullptr;
        cudaGetLastError(); // it is dealt with, and nobody else's
    }
}

Workspace::~Workspace() {
    if (data_) cudaFreeAsync(data_, stream_);
}

} // namespace hc::tvm::cuda
