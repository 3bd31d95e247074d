// Where a hashed weight finds its value, word for word as the format fixes it (hashcompile.h).
#pragma once

#include "cuda/device.h"

namespace hc::cuda {

__device__ __forceinline__ uint32_t mix(uint32_t x) {
    x = (x ^ x >> 15) * 0x5A827999u & 0x7FFFFFFFu;
    x = (x ^ x >> 13) * 0x6ED9EBA1u & 0x7FFFFFFFu;
    return x ^ x >> 16;
}

__device__ __forceinline__ uint32_t row_hash(int i, uint32_t seed) {
    return mix((2 * static_cast<uint32_t>(i) + seed) & 0x7FFFFFFFu);
}

struct Bucket {
    uint32_t index;
    bool negative;
};

// Of tile (i, j), i by its hash.
__device__ __forceinline__ Bucket bucket_of(uint32_t row, int j, uint32_t seed, uint32_t buckets) {
    const uint32_t h = mix(row ^ mix((2 * static_cast<uint32_t>(j) + 1 + seed) & 0x7FFFFFFFu));
    return {static_cast<uint32_t>(uint64_t{h >> 1} * buckets >> 30), (h & 1) != 0};
}

} // namespace hc::cuda
