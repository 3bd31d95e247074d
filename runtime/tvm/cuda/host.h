// TVM on a GPU as a host: one call of a node on the device where its arguments lie, in the stream of whoever calls.
#pragma once

#include "hashcompile_cuda.h"
#include "tvm/arguments.h"
#include "tvm/cuda/memory.h"

namespace hc::tvm::cuda {

class Call {
   public:
    // Arguments as of `Arguments`. Their device is the current one as long as the call lives.
    Call(const Node& node, const TVMFFIAny* args, size_t count);

    Tensor input(size_t index, ElementType type = nodes::kFloat) const { return arguments_.input(index, type); }
    void* output(const std::vector<int64_t>& dims) const { return arguments_.output(dims, 0); }

    // Constants of the node, in the memory of the device; null for no values.
    template <class T>
    const T* constant(const T* host, size_t count) const {
        return static_cast<const T*>(copied(host, count * sizeof(T)));
    }

    // What the kernels take of a call in fp32.
    hc_cuda_call of(const void* x, void* y, const Workspace* workspace = nullptr, size_t workspace_bytes = 0) const;

    cudaStream_t stream() const { return stream_; }

   private:
    const void* copied(const void* host, size_t bytes) const;

    Arguments arguments_;
    int device_;
    DeviceScope scope_;
    cudaStream_t stream_;
};

} // namespace hc::tvm::cuda
