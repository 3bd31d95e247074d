// How a block of threads shares out a product: the sizes that its parts agree on.
#pragma once

#include "cuda/device.h"

namespace hc::cuda {

constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;
constexpr int kDepth = 128; // of K: a stage

// A lane's place in the fragments of tensor cores.
struct Lane {
    int warp, group, thread;
    __device__ __forceinline__ Lane()
        : warp(static_cast<int>(threadIdx.x) / 32),
          group(static_cast<int>(threadIdx.x) % 32 / 4),
          thread(static_cast<int>(threadIdx.x) % 4) {}
};

// K is cut into `count` parts of so many stages, each for blocks of its own.
struct Split {
    int count, stages;
};

} // namespace hc::cuda
