// A launch on the emulated GPU: block after block.
#pragma once

#include "toolkit/cuda_runtime_api.h"

namespace hc::cuda {

inline size_t emulated_multiprocessors = 4;
inline size_t emulated_launches = 0;

inline size_t multiprocessors() { return emulated_multiprocessors; }

template <class... Parameters>
void launch(void (*kernel)(Parameters...), Grid grid, size_t threads, size_t shared, void* stream, Parameters... parameters) {
    if (!grid.x || !grid.y || !grid.z || grid.y > kMostBlocks || grid.z > kMostBlocks || shared > (99 << 10))
        fail(HC_INTERNAL, "no GPU launches %zu x %zu x %zu blocks with %zu bytes of shared memory", grid.x, grid.y,
             grid.z, shared);
    ++emulated_launches;
    emulated_runtime::in_order(stream);
    blockDim = {static_cast<unsigned>(threads), 1, 1};
    gridDim = {static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y), static_cast<unsigned>(grid.z)};
    emulated::block.body = [=] { kernel(parameters...); };
    for (blockIdx.z = 0; blockIdx.z < gridDim.z; ++blockIdx.z)
        for (blockIdx.y = 0; blockIdx.y < gridDim.y; ++blockIdx.y)
            for (blockIdx.x = 0; blockIdx.x < gridDim.x; ++blockIdx.x)
                emulated::run_block(static_cast<unsigned>(threads), shared);
}

} // namespace hc::cuda

extern "C" inline __attribute__((visibility("default"), used)) size_t emulated_launches() {
    return hc::cuda::emulated_launches;
}
