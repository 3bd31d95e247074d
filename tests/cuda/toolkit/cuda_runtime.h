// Launches of TVM's kernels on an emulated GPU.
#pragma once

#include "cuda.h"
#include "cuda_runtime_api.h"

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
    dim3() = default;
    dim3(size_t x, size_t y, size_t z)
        : x(static_cast<unsigned>(x)), y(static_cast<unsigned>(y)), z(static_cast<unsigned>(z)) {}
};

struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    size_t dynamicSmemBytes;
    cudaStream_t stream;
};

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...), Arguments... arguments) {
    using namespace hc::cuda;
    const dim3 block = config->blockDim;
    emulated::block_size = {block.x, block.y, block.z};
    launch<Parameters...>(kernel, {config->gridDim.x, config->gridDim.y, config->gridDim.z},
                          size_t{block.x} * block.y * block.z, config->dynamicSmemBytes, config->stream,
                          static_cast<Parameters>(arguments)...);
    emulated::block_size = {0, 1, 1};
    return cudaSuccess;
}
