#include "tvm/cuda/host.h"

namespace hc::tvm::cuda {

Call::Call(const Node& node, const TVMFFIAny* args, size_t count)
    : arguments_(node, args, count, kCUDA),
      device_(arguments_.device()),
      scope_(device_),
      stream_(TVMFFIEnvGetStream ? static_cast<cudaStream_t>(TVMFFIEnvGetStream(kCUDA, device_)) : nullptr) {}

const void* Call::copied(const void* host, size_t bytes) const {
    static Constants constants; // of all nodes: what several of them read is there once
    return constants.on(device_, host, bytes, stream_);
}

hc_cuda_call Call::of(const void* x, void* y, const Workspace* workspace, size_t workspace_bytes) const {
    hc_cuda_call call{};
    call.size = sizeof call;
    call.dtype = HC_CUDA_F32;
    call.path = HC_CUDA_AUTO;
    call.x = x;
    call.y = y;
    call.workspace = workspace ? workspace->data() : nullptr;
    call.workspace_bytes = call.workspace ? workspace_bytes : 0;
    call.stream = stream_;
    return call;
}

} // namespace hc::tvm::cuda
