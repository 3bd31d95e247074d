// Rows of W by their numbers. A thread makes a piece of one row: of codes a block, of hashed weights 4 neighbours.
#pragma once

#include "cuda/codebook.h"
#include "cuda/hashed.h"

namespace hc::cuda {

template <class T>
struct Ids {
    const int64_t* id;
    int64_t count;
    T* y; // (count, columns)
    int64_t rows;
    int columns;
    const float* scale;
    int scale_step; // 0: one for all

    // A row below 0 counts from the end; none gives -1.
    __device__ int row(int64_t i) const {
        const int64_t n = id[i] < 0 ? id[i] + rows : id[i];
        return n >= 0 && n < rows ? static_cast<int>(n) : -1;
    }
    __device__ float scale_of(int n) const { return scale ? scale[n * scale_step] : 1.0f; }
    __device__ void store(int64_t i, int k, float value) const {
        if (k < columns) y[i * columns + k] = rounded<T>(value);
    }
};

template <class T, int Bits>
__global__ void codebook_embedding(CodebookParams params, Ids<T> ids) {
    using L = Layout<Bits>;
    const int64_t count = ids.count * params.blocks, step = int64_t{gridDim.x} * blockDim.x;
    for (int64_t at = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; at < count; at += step) {
        const int64_t i = at / params.blocks;
        const int block = static_cast<int>(at % params.blocks), n = ids.row(i), known = n < 0 ? 0 : n;
        const float scale = n < 0 ? __uint_as_float(0x7FC00000u) : ids.scale_of(n);
        const float* const codebook = params.codebook + (int64_t{known / params.group_rows} << Bits);
        const uint8_t* const lines = params.codes + (int64_t{known / kPair} * params.blocks + block) * L::block_bytes +
                                     known % kPair * 4;
        uint32_t line[L::lines];
#pragma unroll
        for (int l = 0; l < L::lines; ++l) line[l] = *reinterpret_cast<const uint32_t*>(lines + l * kPairLine);
#pragma unroll
        for (int g = 0; g < L::groups; ++g) {
            const uint32_t indices = four_indices<Bits>(g, [&](int l) { return line[l]; });
#pragma unroll
            for (int j = 0; j < 4; ++j)
                ids.store(i, block * L::period + 4 * g + j, codebook[indices >> 8 * j & 0xFF] * scale);
        }
    }
}

template <class T, int Side>
__global__ void hashed_embedding(HashedParams<T> params, Ids<T> ids) {
    constexpr int each = 4;
    const int pieces = (ids.columns + each - 1) / each;
    const int64_t count = ids.count * pieces, step = int64_t{gridDim.x} * blockDim.x;
    for (int64_t at = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; at < count; at += step) {
        const int64_t i = at / pieces;
        const int n = ids.row(i), known = n < 0 ? 0 : n;
        const float scale = n < 0 ? __uint_as_float(0x7FC00000u) : ids.scale_of(n);
        const uint32_t row = row_hash(known / Side, params.seed);
#pragma unroll
        for (int j = 0; j < each; ++j) {
            const int k = static_cast<int>(at % pieces) * each + j;
            const Bucket bucket = bucket_of(row, k / Side, params.seed, params.buckets);
            const T value = params.values[(int64_t{bucket.index} * Side + k % Side) * Side + known % Side];
            ids.store(i, k, to_float(value) * (bucket.negative ? -scale : scale));
        }
    }
}

} // namespace hc::cuda
