// Few rows of X: W is read once, at the speed of memory, and multiplied in fp32 where the lanes hold it.
//
// The warps of a block take the same rows of W, and batches of K in turns, so that even a layer of few rows occupies the
// GPU; their sums meet in shared memory.
#pragma once

#include "cuda/finish.h"
#include "cuda/quad.h"
#include "cuda/source.h"

namespace hc::cuda {

constexpr int kGemvRows = 4; // of X, at most

template <class Weights>
constexpr int kGemvSums = kWarps * kGemvRows * 8 * Weights::rows * static_cast<int>(sizeof(float)); // bytes

// Grid: (rows of W, parts).
template <class Weights, int RowsOfX>
__global__ void __launch_bounds__(kThreads)
    gemv(typename Weights::Params params, Rows<typename Weights::Type> x, Finish<typename Weights::Type> finish,
         Split split) {
    using T = typename Weights::Type;
    constexpr int rows = Weights::rows, warp_rows = 8 * rows;
    constexpr int depth = 4 * Weights::run * Weights::slabs; // of a batch
    constexpr int of_chunk = 16 / sizeof(T);

    Lane lane;
    const int warp = lane.warp, part = static_cast<int>(blockIdx.y);
    lane.warp = 0; // all take the same rows
    const int block_row = static_cast<int>(blockIdx.x) * warp_rows;
    uint8_t* const shared = shared_memory();
    const Weights weights(params, shared + kGemvSums<Weights>, block_row, warp_rows, lane);
    __syncthreads();

    const int first = part * split.stages * (kDepth / depth);
    const int end = min(first + split.stages * (kDepth / depth), (x.k + depth - 1) / depth);
    float sum[RowsOfX][rows] = {};
    typename Weights::Loaded next = weights.load(first + warp);
    for (int batch = first + warp; batch < end; batch += kWarps) {
        const typename Weights::Loaded loaded = next;
        next = weights.load(batch + kWarps);
#pragma unroll
        for (int s = 0; s < Weights::slabs; ++s)
#pragma unroll
            for (int c = 0; c < Weights::run / of_chunk; ++c) {
                const int k = batch * depth + (s * 4 + lane.thread) * Weights::run + c * of_chunk;
                Words chunk[RowsOfX];
#pragma unroll
                for (int m = 0; m < RowsOfX; ++m) chunk[m] = x.chunk(m, k);
#pragma unroll
                for (int q = 0; q < kQuads<T>; ++q) {
                    float of_x[RowsOfX][4];
#pragma unroll
                    for (int m = 0; m < RowsOfX; ++m) to_floats(quad_of<T>(chunk[m], q), of_x[m]);
#pragma unroll
                    for (int r = 0; r < rows; ++r) {
                        float w[4];
                        to_floats(weights.quad(loaded, s, c * kQuads<T> + q, r), w);
#pragma unroll
                        for (int m = 0; m < RowsOfX; ++m)
#pragma unroll
                            for (int i = 0; i < 4; ++i) sum[m][r] = fmaf(w[i], of_x[m][i], sum[m][r]);
                    }
                }
            }
    }

    float* const sums = reinterpret_cast<float*>(shared); // (warps, RowsOfX, warp_rows)
#pragma unroll
    for (int m = 0; m < RowsOfX; ++m)
#pragma unroll
        for (int r = 0; r < rows; ++r) {
            float total = sum[m][r];
            total += __shfl_xor_sync(0xFFFFFFFFu, total, 1);
            total += __shfl_xor_sync(0xFFFFFFFFu, total, 2);
            if (lane.thread == 0) sums[(warp * RowsOfX + m) * warp_rows + lane.group * rows + r] = total;
        }
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < RowsOfX * warp_rows; i += kThreads) {
        float total[1] = {};
#pragma unroll
        for (int w = 0; w < kWarps; ++w) total[0] += sums[w * RowsOfX * warp_rows + i];
        finish.store(i / warp_rows, block_row + i % warp_rows, total, 0, finish.rows, part);
    }
}

} // namespace hc::cuda
