// What becomes of sums: outputs, or parts of sums where K is split, which a second kernel joins in a fixed order.
#pragma once

#include "cuda/block.h"

namespace hc::cuda {

template <class T>
struct Finish {
    T* y;
    int64_t steps[4]; // of batch, row of W, row, column
    int m, rows;      // of the product; of W
    int group_rows;   // rows of W that read the same channels
    int out_height, out_width;
    const float* scale;
    int scale_step; // 0: one for all
    const float* bias;
    float* parts; // (parts, m, rows), or NULL

    __device__ T* place(int window) const {
        const int pixels = out_height * out_width, image = window / pixels, pixel = window % pixels;
        return y + image * steps[0] + pixel / out_width * steps[2] + pixel % out_width * steps[3];
    }

    __device__ __forceinline__ T output(int n, float sum) const {
        const float scaled = scale ? sum * scale[n * scale_step] : sum;
        return rounded<T>(bias ? scaled + bias[n] : scaled);
    }

    // `sum`: of Count neighbouring rows of W, of which those in [first, end) are wanted.
    template <int Count>
    __device__ __forceinline__ void store(int window, int n, const float (&sum)[Count], int first, int end,
                                          int part) const {
        if (window >= m) return;
        if (parts) {
            float* const to = parts + (int64_t{part} * m + window) * rows;
#pragma unroll
            for (int i = 0; i < Count; ++i)
                if (n + i >= first && n + i < end) to[n + i] = sum[i];
            return;
        }
        struct alignas(Count * sizeof(T)) Run {
            T at[Count];
        };
        T* const to = place(window) + n * steps[1];
        if (steps[1] == 1 && n >= first && n + Count <= end && reinterpret_cast<uintptr_t>(to) % sizeof(Run) == 0) {
            Run run;
#pragma unroll
            for (int i = 0; i < Count; ++i) run.at[i] = output(n + i, sum[i]);
            *reinterpret_cast<Run*>(to) = run;
            return;
        }
#pragma unroll
        for (int i = 0; i < Count; ++i)
            if (n + i >= first && n + i < end) to[i * steps[1]] = output(n + i, sum[i]);
    }
};

template <class T>
__global__ void join(Finish<T> finish, int parts) {
    const float* const from = finish.parts;
    finish.parts = nullptr;
    const int64_t count = int64_t{finish.m} * finish.rows, step = int64_t{gridDim.x} * blockDim.x;
    for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += step) {
        float sum[1] = {};
        for (int p = 0; p < parts; ++p) sum[0] += from[p * count + i];
        finish.store(static_cast<int>(i / finish.rows), static_cast<int>(i % finish.rows), sum, 0, finish.rows, 0);
    }
}

} // namespace hc::cuda
