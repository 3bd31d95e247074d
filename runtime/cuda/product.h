// From a checked product to its kernel: which one, how K is split, and what each launch needs.
#pragma once

#include "cuda/embedding.h"
#include "cuda/gemm.h"
#include "cuda/gemv.h"
#include "cuda/launch.h"
#include "cuda/problem.h"

namespace hc::cuda {

constexpr size_t kBlocksPerCore = 2;    // that keep a multiprocessor busy
constexpr size_t kTableBytes = 8 << 10; // of copies of codebooks in shared memory: several blocks must fit

// Parts of K, so that `blocks` that do all of it become enough to fill the device.
inline Split split(const Problem& p, size_t blocks) {
    const size_t stages = ceil_div(static_cast<size_t>(p.k), kDepth);
    const size_t sums = static_cast<size_t>(p.m) * static_cast<size_t>(p.rows);
    size_t parts = 1;
    if (static_cast<size_t>(p.m) <= kSplitRows && blocks) {
        parts = smaller(kMostParts, kBlocksPerCore * multiprocessors() / blocks);
        parts = smaller(smaller(parts, stages), sums ? p.workspace_floats / sums : 0);
    }
    if (parts < 2) return {1, static_cast<int>(stages)};
    const size_t each = ceil_div(stages, parts);
    return {static_cast<int>(ceil_div(stages, each)), static_cast<int>(each)};
}

template <class T>
bool aligned(const Problem& p) {
    constexpr int64_t numbers = 16 / sizeof(T);
    bool whole = reinterpret_cast<uintptr_t>(p.x) % 16 == 0 && p.channels % numbers == 0 && p.x_steps[1] == 1;
    for (const int i : {0, 2, 3}) whole = whole && p.x_steps[i] % numbers == 0;
    return whole;
}

template <class T>
Source<T> source_of(const Problem& p) {
    Source<T> s{static_cast<const T*>(p.x), {}, p.m, p.k, p.channels, p.height, p.width, p.out_height, p.out_width,
                p.taps_x, p.stride_y, p.stride_x, p.dilation_y, p.dilation_x, p.top, p.left, aligned<T>(p)};
    for (int i = 0; i < 4; ++i) s.steps[i] = p.x_steps[i];
    return s;
}

template <class T>
Finish<T> finish_of(const Problem& p, const Split& split) {
    Finish<T> f{static_cast<T*>(p.y), {}, p.m, p.rows, p.rows / p.groups, p.out_height, p.out_width,
                p.scale, p.scale_step, p.bias, split.count > 1 ? p.workspace : nullptr};
    for (int i = 0; i < 4; ++i) f.steps[i] = p.y_steps[i];
    return f;
}

template <class T>
void join_parts(const Problem& p, const Finish<T>& finish, const Split& split) {
    if (split.count < 2) return;
    const size_t sums = product(static_cast<size_t>(p.m), static_cast<size_t>(p.rows));
    launch(join<T>, {smaller(ceil_div(sums, 256), 4096), 1, 1}, 256, 0, p.stream, finish, split.count);
}

template <class Weights, int RowsOfX>
void run_gemv(const typename Weights::Params& params, size_t table_bytes, const Problem& p) {
    using T = typename Weights::Type;
    const size_t blocks = ceil_div(static_cast<size_t>(p.rows), 8 * Weights::rows);
    const Split parts = split(p, blocks);
    const Finish<T> finish = finish_of<T>(p, parts);
    const Rows<T> x{static_cast<const T*>(p.x), p.m, p.k, aligned<T>(p)};
    launch(gemv<Weights, RowsOfX>, {blocks, static_cast<size_t>(parts.count), 1}, kThreads,
           kGemvSums<Weights> + table_bytes, p.stream, params, x, finish, parts);
    join_parts(p, finish, parts);
}

template <class Weights, int RowsOfX>
void run_gemm(const typename Weights::Params& params, size_t table_bytes, const Problem& p) {
    using T = typename Weights::Type;
    const size_t across = ceil_div(static_cast<size_t>(p.m), RowsOfX), groups = static_cast<size_t>(p.groups);
    // Of several groups one may begin within a pair of tiles.
    const size_t rows = static_cast<size_t>(p.rows / p.groups) + (p.groups > 1 ? kPair - 1 : 0);
    const size_t down = ceil_div(rows, kBlockRows<Weights>);
    const Split parts = split(p, product(across, down, groups));
    const Finish<T> finish = finish_of<T>(p, parts);
    launch(gemm<Weights, RowsOfX>, {across, down, product(groups, static_cast<size_t>(parts.count))}, kThreads,
           ActivationsOf<Weights, RowsOfX>::bytes + table_bytes, p.stream, params, source_of<T>(p), finish, parts);
    join_parts(p, finish, parts);
}

// Rows of X that a block takes where there are many: sums must fit the registers.
template <class Weights>
constexpr int kManyRows = sizeof(typename Weights::Type) == 4 || Weights::rows > 4 ? 32 : 64;

template <class Weights>
void run(const typename Weights::Params& params, size_t table_bytes, const Problem& p) {
    if (!p.m || !p.rows) return;
    const bool few = p.linear && p.m <= kGemvRows;
    if (p.path == HC_CUDA_GEMV && !few) fail(HC_INVALID_ARGUMENT, "%d rows of x; wanted 1 to %d", p.m, kGemvRows);
    if (few && p.path != HC_CUDA_GEMM)
        return p.m == 1 ? run_gemv<Weights, 1>(params, table_bytes, p)
                        : run_gemv<Weights, kGemvRows>(params, table_bytes, p);
    return p.m <= 16 ? run_gemm<Weights, 16>(params, table_bytes, p)
                     : run_gemm<Weights, kManyRows<Weights>>(params, table_bytes, p);
}

template <class T>
Ids<T> ids_of(const Lookup& l) {
    return {l.ids, l.count, static_cast<T*>(l.y), l.rows, l.columns, l.scale, l.scale_step};
}

// `pieces` of every row, each a thread's.
inline Grid grid_of(const Lookup& l, size_t pieces) {
    return {smaller(ceil_div(product(static_cast<size_t>(l.count), pieces), 256), 65536), 1, 1};
}

} // namespace hc::cuda
