// Memory of a device.
#pragma once

#include <cuda_runtime_api.h>

#include <map>
#include <memory>
#include <mutex>

#include "ops/error.h"

namespace hc::tvm::cuda {

inline void check(cudaError_t status, const char* what) {
    if (status == cudaSuccess) return;
    cudaGetLastError(); // which the next launch would find, and take for its own
    fail(status == cudaErrorMemoryAllocation ? HC_OUT_OF_MEMORY : HC_INTERNAL, "%s: %s", what,
         cudaGetErrorString(status));
}

// Makes a device the current one, until it goes.
class DeviceScope {
   public:
    explicit DeviceScope(int device);
    ~DeviceScope();
    DeviceScope(const DeviceScope&) = delete;

   private:
    int device_, before_ = 0;
};

// Constants in the memory of devices, each copied when a device first asks for it, and kept as long as this.
class Constants {
   public:
    // Of the current device, which is `device`. Whoever asks later gets numbers that have arrived, in whatever stream.
    const void* on(int device, const void* host, size_t bytes, cudaStream_t stream);

   private:
    struct Free {
        void operator()(void* memory) const { cudaFree(memory); }
    };
    std::mutex mutex_;
    std::map<std::pair<int, const void*>, std::unique_ptr<void, Free>> held_;
};

// Memory of the current device, in the order of a stream: null where there is none to be had.
class Workspace {
   public:
    Workspace(size_t bytes, cudaStream_t stream);
    ~Workspace();
    Workspace(const Workspace&) = delete;

    void* data() const { return data_; }

   private:
    void* data_ = nullptr;
    cudaStream_t stream_;
};

} // namespace hc::tvm::cuda
