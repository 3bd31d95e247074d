/* The C ABI of the CUDA kernels: linear, conv2d and embedding on codebook weights, linear and embedding on hashed weights.
 * A library of its own, libhashcompile_cuda, on which nothing else of the runtime depends.
 *
 * Formats are those of hashcompile.h. Every pointer is to memory of the current device, but for the descriptions, which are
 * read before a call returns. Work goes to the stream that a call names, and nothing waits for it. No function throws,
 * aborts on data, or keeps anything from call to call; a failing one returns a code and writes a sentence to `error`.
 *
 * Arithmetic: sums in fp32, outputs rounded once. With fp16 or bf16 activations the centroids are rounded to the same type
 * before they meet. With fp32 ones a product of few rows is fp32 throughout; one of many rows multiplies each number in two
 * parts of 11 significant bits (TF32), which leaves 2^-20 of |w * x|, and makes NaN of an infinite activation. The same
 * call gives the same bits each time on one kind of device. */
#ifndef HASHCOMPILE_CUDA_H
#define HASHCOMPILE_CUDA_H

#include "hashcompile.h"

#ifdef __cplusplus
extern "C" {
#endif

#define HC_CUDA_ABI_VERSION 1

/* Of activations and outputs. */
typedef int32_t hc_cuda_dtype;
enum { HC_CUDA_F32 = 0, HC_CUDA_F16 = 1, HC_CUDA_BF16 = 2 };

/* Which kernel multiplies: one that reads W once for at most 4 rows of x, or tensor cores. For measurements. */
typedef int32_t hc_cuda_path;
enum { HC_CUDA_AUTO = 0, HC_CUDA_GEMV = 1, HC_CUDA_GEMM = 2 };

/* W[n, k] = codebook[n / group_rows][index[n, k]] * scale[n] (group_rows 0: one table), in the T16 layout. */
typedef struct hc_cuda_codebook {
    uint32_t size; /* sizeof(hc_cuda_codebook) */
    uint32_t bits; /* of an index, 1 to 8 */
    int64_t rows, columns;
    int64_t group_rows;   /* 0, or a multiple of 16 */
    const uint8_t* codes; /* at a multiple of 16 bytes */
    size_t codes_bytes;   /* hc_codes_bytes(bits, rows, columns) */
    const float* codebook;
    size_t codebook_len; /* tables * 2^bits */
    const float* scale;
    size_t scale_len;  /* rows */
    const float* bias; /* NULL for none */
    size_t bias_len;
} hc_cuda_codebook;

/* A hashed weight of tiles of `side` x `side` (16, as in hc_hashed_desc, or 1: every weight is a tile). */
typedef struct hc_cuda_hashed {
    uint32_t size; /* sizeof(hc_cuda_hashed) */
    uint32_t seed; /* below 2^31 */
    int64_t rows, columns;
    int64_t side;
    const void* values; /* of the dtype of the call, at a multiple of 16 bytes */
    size_t values_len;  /* a multiple of side * side, not 0 */
    const float* scale; /* (rows), or one for all of them; NULL for ones */
    size_t scale_len;
    const float* bias; /* (rows); NULL for none */
    size_t bias_len;
} hc_cuda_hashed;

/* What all calls take. The workspace may be smaller than hc_cuda_workspace says, or NULL: K is then cut into fewer parts
 * for blocks of their own, which is slower where there are few rows. */
typedef struct hc_cuda_call {
    uint32_t size; /* sizeof(hc_cuda_call) */
    hc_cuda_dtype dtype;
    hc_cuda_path path;
    uint32_t reserved; /* 0 */
    const void* x;
    void* y;
    void* workspace; /* at a multiple of 16 bytes */
    size_t workspace_bytes;
    void* stream; /* a cudaStream_t */
} hc_cuda_call;

/* A convolution; steps are distances between numbers, so that any layout of images will do. Fast are those with channels
 * innermost (step 1), and as many of them a group as fill 16 bytes, or a multiple. */
typedef struct hc_cuda_conv {
    uint32_t size;     /* sizeof(hc_cuda_conv) */
    uint32_t reserved; /* 0 */
    hc_shape x;
    hc_window window;
    int64_t groups;
    int64_t x_steps[4]; /* of batch, channel, row, column; 0 or more */
    int64_t y_steps[4];
} hc_cuda_conv;

HC_API uint32_t hc_cuda_abi_version(void);

/* Bytes with which a product of m rows of x by a weight of `rows` rows runs at its fastest. */
HC_API size_t hc_cuda_workspace(int64_t m, int64_t rows);

/* y (m, rows) = x (m, columns) W' + bias, dense and row-major. */
HC_API hc_code hc_cuda_linear(const hc_cuda_codebook* weight, const hc_cuda_call* call, int64_t m, hc_error* error);

/* y (B, rows, OH, OW) = conv(x (B, C, H, W), W (rows, kh, kw, C / groups)) + bias, channels innermost in K. */
HC_API hc_code hc_cuda_conv2d(const hc_cuda_codebook* weight, const hc_cuda_call* call, const hc_cuda_conv* conv,
                              hc_error* error);

/* y (count, columns) = W[x], x int64. An id in [-rows, 0) counts from the end; any other outside [0, rows) gives NaN. */
HC_API hc_code hc_cuda_embedding(const hc_cuda_codebook* weight, const hc_cuda_call* call, int64_t count,
                                 hc_error* error);

/* As hc_cuda_linear; side 16. */
HC_API hc_code hc_cuda_hashed_linear(const hc_cuda_hashed* weight, const hc_cuda_call* call, int64_t m,
                                     hc_error* error);

/* As hc_cuda_embedding. */
HC_API hc_code hc_cuda_hashed_embedding(const hc_cuda_hashed* weight, const hc_cuda_call* call, int64_t count,
                                        hc_error* error);

#ifdef __cplusplus
}
#endif
#endif
