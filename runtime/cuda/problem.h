// What the C ABI hands to the kernels once it is checked: plain C++, for both compilers.
#pragma once

#include "cuda/numbers.h"
#include "hashcompile_cuda.h"
#include "ops/sizes.h"

namespace hc::cuda {

constexpr size_t kMostParts = 8;  // of K
constexpr size_t kSplitRows = 64; // of X, at most, for K to be split

// A product as the kernels' sizes have it; all fit an int.
struct Problem {
    hc_cuda_path path;
    int m, k, rows; // of X; of W
    int groups;     // of channels
    bool linear;    // X is dense rows; else windows of images

    // Of images: what Source and Finish hold, but for pointers.
    int64_t x_steps[4], y_steps[4];
    int channels, height, width, out_height, out_width;
    int taps_x, stride_y, stride_x, dilation_y, dilation_x, top, left;

    const void* x;
    void* y;
    const float *scale, *bias;
    int scale_step;
    float* workspace;
    size_t workspace_floats;
    void* stream;
};

// Rows of an embedding, as the calls have them.
struct Lookup {
    const int64_t* ids;
    int64_t count, rows;
    int columns;
    const float* scale;
    int scale_step;
    void* y;
    void* stream;
};

// The kernels of one width of indices; one translation unit has each. A library may lack it: these are null then, and each
// unit that is there has a symbol of its own, hc_cuda_<bits>_bits or hc_cuda_hashes, for linkers to ask for.
#define HC_CUDA_PART __attribute__((weak, visibility("hidden")))

template <int Bits>
HC_CUDA_PART void codebook_product(const hc_cuda_codebook& weight, hc_cuda_dtype dtype, const Problem& problem);
template <int Bits>
HC_CUDA_PART void codebook_lookup(const hc_cuda_codebook& weight, hc_cuda_dtype dtype, const Lookup& lookup);

HC_CUDA_PART void hashed_product(const hc_cuda_hashed& weight, hc_cuda_dtype dtype, const Problem& problem);
HC_CUDA_PART void hashed_lookup(const hc_cuda_hashed& weight, hc_cuda_dtype dtype, const Lookup& lookup);

// Calls `body(T{})` with the type of a dtype. HC_CUDA_F32_ONLY: of a library that computes nothing else.
template <class Body>
void with_type(hc_cuda_dtype dtype, Body&& body) {
    if (dtype == HC_CUDA_F32) return body(float{});
#ifndef HC_CUDA_F32_ONLY
    if (dtype == HC_CUDA_F16) return body(Half{});
    if (dtype == HC_CUDA_BF16) return body(Bf16{});
#endif
    fail(HC_INVALID_ARGUMENT, "dtype %d; wanted 0, 1 or 2", dtype);
}

} // namespace hc::cuda
