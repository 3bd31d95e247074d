// Many rows of X: tensor cores. W is the operand of 16 rows, so that X comes 8 rows at a time.
//
// A warp decodes its rows of W in registers, once for all rows of X that its block has, which lie in shared memory. Weights
// and activations of the next stage are on their way while one is multiplied.
#pragma once

#include "cuda/activations.h"
#include "cuda/finish.h"

namespace hc::cuda {

template <class Weights>
constexpr int kBlockRows = kWarps * 8 * Weights::rows; // of W

template <class Weights, int RowsOfX>
using ActivationsOf = Activations<typename Weights::Type, RowsOfX, Weights::run>;

// Grid: (rows of X, rows of W of a group of channels, groups * parts).
template <class Weights, int RowsOfX>
__global__ void __launch_bounds__(kThreads, 2)
    gemm(typename Weights::Params params, Source<typename Weights::Type> source, Finish<typename Weights::Type> finish,
         Split split) {
    using T = typename Weights::Type;
    using X = ActivationsOf<Weights, RowsOfX>;
    constexpr int octets = RowsOfX / 8, pairs = Weights::rows / 2;
    constexpr int batches = kDepth / (4 * Weights::run * Weights::slabs); // of weights, a stage

    const Lane lane;
    const int group = static_cast<int>(blockIdx.z) / split.count, part = static_cast<int>(blockIdx.z) % split.count;
    const int first_window = static_cast<int>(blockIdx.x) * RowsOfX;
    const int first_row = group * finish.group_rows, end_row = first_row + finish.group_rows;
    const int block_row = first_row / kPair * kPair + static_cast<int>(blockIdx.y) * kBlockRows<Weights>;
    uint8_t* const shared = shared_memory();
    const X x(source, shared, first_window, group);
    const Weights weights(params, shared + X::bytes, block_row, kBlockRows<Weights>, lane);
    __syncthreads();

    const int first = part * split.stages;
    const int end = min(first + split.stages, (source.k + kDepth - 1) / kDepth);
    float sum[octets][pairs][4] = {};
    if (first < end) {
        x.copy(first);
        typename Weights::Loaded next = weights.load(first * batches);
        for (int stage = first; stage < end; ++stage) {
            if (stage + 1 < end) {
                x.copy(stage + 1);
                wait_copies<1>();
            } else {
                wait_copies<0>();
            }
            __syncthreads();
#pragma unroll
            for (int b = 0; b < batches; ++b) {
                const typename Weights::Loaded loaded = next;
                next = weights.load(stage * batches + b + 1);
#pragma unroll
                for (int s = 0; s < Weights::slabs; ++s)
#pragma unroll
                    for (int c = 0; c < Weights::run * static_cast<int>(sizeof(T)) / 16; ++c) {
                        Words chunk[octets];
#pragma unroll
                        for (int o = 0; o < octets; ++o)
                            chunk[o] = x.chunk(stage, 8 * o + lane.group, b * Weights::slabs + s, c, lane);
#pragma unroll
                        for (int q = 0; q < kQuads<T>; ++q) {
                            const int i = c * kQuads<T> + q;
#pragma unroll
                            for (int p = 0; p < pairs; ++p) {
                                const Operand<T> w(weights.quad(loaded, s, i, 2 * p));
                                const Operand<T> below(weights.quad(loaded, s, i, 2 * p + 1));
#pragma unroll
                                for (int o = 0; o < octets; ++o)
                                    multiply<T>(sum[o][p], w, below, Operand<T>(quad_of<T>(chunk[o], q)));
                            }
                        }
                    }
            }
            __syncthreads();
        }
    }

    const int n = block_row + (lane.warp * 8 + lane.group) * Weights::rows;
#pragma unroll
    for (int o = 0; o < octets; ++o)
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            float of_rows[Weights::rows];
#pragma unroll
            for (int r = 0; r < Weights::rows; ++r) of_rows[r] = sum[o][r / 2][r % 2 * 2 + i];
            finish.store(first_window + 8 * o + 2 * lane.thread + i, n, of_rows, first_row, end_row, part);
        }
}

} // namespace hc::cuda
