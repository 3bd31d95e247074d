/* The C ABI of the hashcompile runtime: linear, conv2d and embedding on codebook weights; attention and norms;
 * wide output layers, of fp32 or of codes; linear layers of hashed tiles.
 *
 * A weight W (N, K) is stored as packed indices, a table of centroids and one scale per row:
 *     W[n, k] = codebook[n / group_rows][index[n, k]] * scale[n]          (group_rows 0: one table)
 * The indices stay packed in memory (the T16 layout, documented at hc_codes_bytes); the caller owns them and keeps
 * them alive for the life of the weight. Everything else is copied, and small.
 *
 * Every function may be called from any thread. A weight is immutable once open. No function throws, aborts on
 * data, or keeps a global that changes; a failing one returns a code and writes a sentence to `error`.
 */
#ifndef HASHCOMPILE_H
#define HASHCOMPILE_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define HC_API __declspec(dllexport)
#else
#define HC_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define HC_ABI_VERSION 2

typedef int32_t hc_code;
enum { HC_OK = 0, HC_INVALID_ARGUMENT = 1, HC_OUT_OF_RANGE = 2, HC_OUT_OF_MEMORY = 3, HC_INTERNAL = 4 };

/* Where a failing call says why. The caller owns it; NULL is allowed everywhere. */
typedef struct hc_error {
    char text[256];
} hc_error;

/* A host's thread pool. `parallel_for` calls task(arg, i) once for each i in [0, count), in any order, on any
 * thread, and returns when all are done. A NULL hc_exec runs everything on the calling thread. */
typedef struct hc_exec {
    void* host;
    void (*parallel_for)(void* host, void (*task)(void* arg, size_t i), void* arg, size_t count);
} hc_exec;

/* What the arithmetic is.
 * HC_FLOAT: fp32, in any order of summation.
 * HC_INT8: centroids and activations rounded to 8 bits, exact int32 sums, the same bits on every ISA and for every
 *   number of threads. Per row x of the activations (per image for a convolution), amax = max|x|:
 *     q = round_half_even(x * (127 / amax)),  sx = amax / 127     (q = 0 where 127 / amax is not finite;
 *                                                                  the row of Y is NaN where amax is not)
 *   Per table: sc = max|c| / 127, t = round_half_even(c / sc).
 *     Y = float(sum_k q * t) * (sx * sc) * scale[n] + bias[n]
 *   (The kernels see q + 128: activations are unsigned there, with a zero point.)
 *   8-bit codes that are their own t as signed bytes (t[i] = int8(i), no code of -128) are multiplied without a table.
 * HC_BF16: as HC_FLOAT, but centroids and activations may be rounded to bf16 before they meet: to 8 significant bits,
 *   halves to even. They are where the CPU multiplies bf16 (HC_ISA_AVX512BF16); elsewhere the fp32 kernels run. */
enum { HC_FLOAT = 0, HC_INT8 = 1, HC_BF16 = 2 };

/* What follows a product: y = activation(product + bias + residual). */
typedef int32_t hc_activation;
enum {
    HC_NONE = 0,
    HC_RELU = 1,
    HC_CLIP = 2, /* to [low, high] */
    HC_GELU = 3,
    HC_GELU_TANH = 4,
    HC_SILU = 5,
    HC_HARD_SWISH = 6,
    HC_ACTIVATION_END = 7
};

typedef struct hc_epilogue {
    uint32_t size; /* sizeof(hc_epilogue) */
    hc_activation activation;
    float low, high;       /* of HC_CLIP */
    const float* residual; /* of the shape of y; NULL for none */
} hc_epilogue;

/* Instruction sets. A kernel for one runs where the CPU has all that it includes; as a cap (HC_ISA, hc_weight_desc.isa)
 * one allows all that it includes. */
typedef int32_t hc_isa;
enum {
    HC_ISA_AUTO = 0,
    HC_ISA_SCALAR = 1,
    HC_ISA_AVX2 = 2,          /* scalar; AVX2, FMA */
    HC_ISA_AVXVNNI = 3,       /* avx2; AVX-VNNI: CPUs without AVX-512 may have it, and some with AVX-512 do not */
    HC_ISA_AVX512 = 4,        /* avx2; AVX-512 F, BW, DQ, VL */
    HC_ISA_AVX512VNNI256 = 5, /* avx512; AVX-512 VNNI, used on 256 bits: CPUs without VBMI */
    HC_ISA_AVX512VNNI = 6,    /* avx512vnni256; AVX-512 VBMI */
    HC_ISA_AVX512BF16 = 7,    /* avx512vnni; AVX-512 BF16 */
    HC_ISA_NEON = 8,          /* scalar; every 64-bit ARM */
    HC_ISA_DOTPROD = 9,       /* neon; FEAT_DotProd */
    HC_ISA_I8MM = 10,         /* dotprod; FEAT_I8MM */
    HC_ISA_END = 11
};

typedef struct hc_weight hc_weight;

typedef struct hc_weight_desc {
    uint32_t size;      /* sizeof(hc_weight_desc) */
    uint32_t bits;      /* of an index, 1 to 8; or 32: codes are the values themselves, fp32, and there is no table */
    uint32_t compute;   /* HC_FLOAT, HC_INT8 or HC_BF16 */
    hc_isa isa;         /* the cap; HC_ISA_AUTO for what HC_ISA allows and this CPU has */
    int64_t rows;       /* N */
    int64_t columns;    /* K */
    int64_t group_rows; /* rows that share a table: 0 (all of them) or a multiple of 16 */
    int64_t groups;     /* of a convolution: group g of the rows reads group g of the channels; 1 elsewhere */
    const uint8_t* codes;
    size_t codes_bytes; /* hc_codes_bytes(bits, rows, columns) */
    const float* codebook;
    size_t codebook_len; /* tables * 2^bits; 0 where bits is 32 */
    const float* scale;
    size_t scale_len;  /* N */
    const float* bias; /* NULL for none */
    size_t bias_len;   /* N */
} hc_weight_desc;

/* A window over (H, W). A 1-D convolution has height, kernel[0] and strides[0] of 1. */
typedef struct hc_window {
    int64_t kernel[2], strides[2], dilations[2];
    int64_t pads[4]; /* top, left, bottom, right */
} hc_window;

/* (B, C, H, W) */
typedef struct hc_shape {
    int64_t batch, channels, height, width;
} hc_shape;

/* What of a convolution has channels innermost: x is (B, H, W, C) then; y, and the residual, are (B, OH, OW, N). */
enum { HC_LAST_X = 1, HC_LAST_Y = 2 };

typedef struct hc_conv_desc {
    uint32_t size;          /* sizeof(hc_conv_desc) */
    uint32_t channels_last; /* of HC_LAST_X and HC_LAST_Y any; 0 for a weight in HC_INT8 */
    hc_shape x;
    hc_window window;
} hc_conv_desc;

/* A chain: convolutions and what lies between them, with activations in 8 bits from the first to the last.
 *
 * Tensors are numbered: the inputs of the chain, then the output of every step. Each is held as q in 0..255,
 * channels innermost:
 *     real = scale * (q - zero),   q = clamp(round_half_even(real * (1 / scale)) + zero, 0, 255)
 * A scale of 0 is found in each run, for each image, from its values and 0:
 *     scale = (high - low) / 255,  zero = round_half_even(-low * (1 / scale))
 * but for a subsampling without activation, whose output then has the scale and zero of its input.
 * Where the scale is given and the activation is none or a clip, the sums of a convolution become q with all scales, and
 * 1 / scale, in one factor.
 * A tensor that no step reads is not rounded. The outputs of an image whose input is not finite are NaN. */
typedef struct hc_quant {
    float scale;
    int32_t zero;
} hc_quant;

typedef int32_t hc_step_kind;
enum {
    HC_STEP_CONV = 0,           /* other: the residual, or -1 */
    HC_STEP_MAX_POOL = 1,
    HC_STEP_AVERAGE_POOL = 2,   /* flag 1: the padding counts */
    HC_STEP_GLOBAL_AVERAGE = 3, /* over (H, W), which become (1, 1) */
    HC_STEP_ADD = 4,            /* input + other */
    HC_STEP_SUBSAMPLE = 5,      /* every stride-th row and column, between channels of zeros */
    HC_STEP_END = 6
};

typedef struct hc_step {
    uint32_t size; /* sizeof(hc_step) */
    hc_step_kind kind;
    int32_t input, other, output; /* tensors */
    uint32_t flag;
    hc_activation activation;
    float low, high;
    const hc_weight* weight; /* of a convolution; HC_INT8 */
    hc_window window;                        /* of a subsampling: its strides alone */
    int64_t channels_before, channels_after; /* of zeros, by a subsampling */
} hc_step;

typedef struct hc_chain hc_chain;

typedef struct hc_chain_desc {
    uint32_t size; /* sizeof(hc_chain_desc) */
    uint32_t input_count;
    const hc_quant* tensors; /* input_count + step_count */
    size_t tensor_count;
    const hc_step* steps;
    size_t step_count;
    const int32_t* outputs; /* tensors that leave the chain */
    size_t output_count;
} hc_chain_desc;

typedef int32_t hc_pool_kind;
enum { HC_POOL_MAX = 0, HC_POOL_AVERAGE = 1 };

/* A pool over (H, W) of images with channels last. A window without a place in the image is refused. */
typedef struct hc_pool_desc {
    uint32_t size; /* sizeof(hc_pool_desc) */
    hc_isa isa;
    hc_pool_kind kind;
    int32_t counts_padding; /* 1: an average is over all places of the window; 0: over those in the image */
    hc_shape x;
    hc_window window;
} hc_pool_desc;

/* What an attention adds to its scores. */
enum { HC_MASK_NONE = 0, HC_MASK_FLOAT = 1, HC_MASK_BOOL = 2 };

/* Attention of `heads` query heads on `kv_heads` heads of keys and values: query head h reads head
 * h / (heads / kv_heads). A step is a distance in values (floats; bytes in a mask of bools), 0 where a mask is the same
 * throughout; the features of a head lie side by side. */
typedef struct hc_attention_desc {
    uint32_t size; /* sizeof(hc_attention_desc) */
    hc_isa isa;
    uint32_t compute;  /* HC_FLOAT or HC_INT8 */
    uint32_t reserved; /* 0 */
    int64_t batch, queries, keys, heads, kv_heads;
    int64_t key_size;   /* features of a query and of a key */
    int64_t value_size; /* features of a value */
    int64_t q_steps[3], k_steps[3], v_steps[3]; /* from batch to batch, head to head, token to token */
    int64_t mask_steps[4];                      /* from batch to batch, head to head, query to query, key to key */
    int32_t mask;                               /* HC_MASK_... */
    int32_t causal;                             /* 1: query i sees keys 0 to i only */
    int32_t hidden_is_zero; /* of a query whose every score is -infinity: 1 gives zeros, 0 gives NaN, as softmax does */
    float scale;            /* of the scores, before the mask */
} hc_attention_desc;

/* A norm over the columns of x (rows, columns), of s = x + residual:
 *     centered 1: y = (s - mean(s)) / sqrt(mean((s - mean(s))^2) + epsilon) * weight + bias    (layer norm)
 *     centered 0: y = s / sqrt(mean(s^2) + epsilon) * weight + bias                            (RMS norm) */
typedef struct hc_norm_desc {
    uint32_t size; /* sizeof(hc_norm_desc) */
    hc_isa isa;
    int64_t rows, columns;
    int32_t centered;
    float epsilon;
    const float* weight; /* (columns); NULL for ones, and no bias then */
    const float* bias;   /* (columns); NULL for none */
} hc_norm_desc;

/* `batch` products of x (rows, inner) by w (inner, columns), all of them dense, one behind another. */
typedef struct hc_matmul_desc {
    uint32_t size; /* sizeof(hc_matmul_desc) */
    hc_isa isa;
    int64_t batch, rows, inner, columns;
    int32_t transposed; /* 1: each w is (columns, inner) */
    uint32_t reserved;  /* 0 */
} hc_matmul_desc;

/* A softmax over the columns of x (rows, columns): y = exp(x) / sum(exp(x)), or its logarithm. */
typedef struct hc_softmax_desc {
    uint32_t size; /* sizeof(hc_softmax_desc) */
    hc_isa isa;
    int64_t rows, columns;
    int32_t log;       /* 1: the logarithm */
    uint32_t reserved; /* 0 */
} hc_softmax_desc;

/* A wide output layer, W (N, K), of which a run computes few rows: those whose sketch is near that of x.
 *
 * The sketch of x has the bits start[j] + sum_k x[k] * planes[k][j] >= 0, in float and in the order of k; bit j is bit
 * j % 8 of byte j / 8. Row n has its own in sketches[j / 8][n], and is a candidate where the two differ in at most limit[n]
 * bits; a distance above 255 counts as 255, so that a limit of 255 takes a row always. Where there is no candidate, all
 * rows are.
 *
 * W is `weight`, or codes row by row, not in T16, for a run reads rows here and there:
 *     W[n][k] = table[index[n][k]] * scale[n]
 * where the index is the `code_bits` bits of row n from bit k * code_bits on, the lowest first, and a row begins at a
 * byte. */
typedef struct hc_wide_desc {
    uint32_t size; /* sizeof(hc_wide_desc) */
    hc_isa isa;
    int64_t rows;    /* N, below 2^32 */
    int64_t columns; /* K */
    int64_t bits;    /* of a sketch: a multiple of 8, from 8 to 4096 */
    const float* weight; /* (N, K); borrowed, for the life of the layer, where it is aligned as floats are */
    size_t weight_len;
    const float* bias; /* (N); NULL for none */
    size_t bias_len;
    const float* planes; /* (K, bits) */
    size_t planes_len;
    const float* start; /* (bits) */
    size_t start_len;
    const uint8_t* sketches; /* (bits / 8, N); borrowed */
    size_t sketches_len;
    const uint8_t* limit; /* (N); borrowed */
    size_t limit_len;
    int64_t code_bits;    /* 1, 2, 4 or 8; 0 where W is `weight`. Then what follows is empty, else `weight` */
    const uint8_t* codes; /* (N, ceil(K * code_bits / 8)); borrowed */
    size_t codes_len;
    const float* table; /* (2^code_bits) */
    size_t table_len;
    const float* scale; /* (N) */
    size_t scale_len;
} hc_wide_desc;

typedef struct hc_wide hc_wide;

/* A linear layer of tiles: 16 x 16 weights of W (N, K) are one of B = values_len / 256 tiles of `values`, column after
 * column, or its negative. With
 *     mix(x):  x ^= x >> 15;  x = x * 0x5A827999 mod 2^31;  x ^= x >> 13;  x = x * 0x6ED9EBA1 mod 2^31;  x ^= x >> 16
 * the tile (i, j), of rows from 16 i and columns from 16 j on, has
 *     h = mix(mix((2 i + seed) mod 2^31) ^ mix((2 j + 1 + seed) mod 2^31)),   bucket = floor((h >> 1) * B / 2^30)
 * and is negated where h is odd. Row n is multiplied by scale[n]. */
typedef struct hc_hashed_desc {
    uint32_t size; /* sizeof(hc_hashed_desc) */
    hc_isa isa;
    int64_t rows, columns; /* at most 4096 weights a value */
    uint32_t seed;         /* below 2^31 */
    uint32_t reserved;     /* 0 */
    const float* values;   /* copied */
    size_t values_len;     /* a multiple of 256, not 0 */
    const float* scale;    /* (N), or one for all rows; NULL for ones */
    size_t scale_len;
    const float* bias; /* (N); NULL for none */
    size_t bias_len;
} hc_hashed_desc;

typedef struct hc_hashed hc_hashed;

/* One row of the kernel table. */
typedef struct hc_kernel {
    char name[64];   /* operation, activation type, index width, ISA: codebook_i8_u4_avx2 */
    const char* isa; /* name of the instruction set */
    hc_isa isa_id;
    int32_t bits;     /* of an index; 0 for a kernel that sees no codes */
    int32_t runnable; /* this CPU has the instructions */
    int32_t selected; /* hc_weight_open takes it with HC_ISA_AUTO */
} hc_kernel;

HC_API uint32_t hc_abi_version(void);

/* The i-th CPU feature that dispatch looks at, and whether CPU and system have it; NULL past the last. */
HC_API const char* hc_cpu_feature(size_t i, int32_t* present);

/* Name of an instruction set, as the environment variable HC_ISA spells it; NULL for an unknown one.
 * HC_ISA caps what HC_ISA_AUTO may choose; it is read once. */
HC_API const char* hc_isa_name(hc_isa isa);

/* The i-th kernel; HC_OUT_OF_RANGE past the last. */
HC_API hc_code hc_kernel_get(size_t i, hc_kernel* out);

/* Bytes of the codes of an (N, K) matrix, 0 if there is no such matrix. The layout, T16: rows in pairs of tiles of
 * 16; an index cut into planes of 8, 4, 2 or 1 bits, widest first, the widest holding the lowest bits:
 *     codes: (row_pairs, k_blocks, lines, 2 tiles, 16 rows, 4) uint8
 * Sub-field s of byte kk of line l of a plane of width w belongs to k = block * period + l * (32 / w) + 4 * s + kk,
 * where period = 32 / (width of the narrowest plane). Padding rows and padding k hold index 0.
 * With 32 bits a line holds one k of 16 rows: the four bytes of a row are its fp32 value, at an address that is a multiple
 * of 4, and W = value * scale. Such a weight is HC_FLOAT (or HC_BF16, which is the same then), with group_rows 0. */
HC_API size_t hc_codes_bytes(uint32_t bits, int64_t rows, int64_t columns);

/* Checks everything (sizes, finiteness), prepares the tables, picks the kernels. */
HC_API hc_code hc_weight_open(const hc_weight_desc* desc, hc_weight** out, hc_error* error);
HC_API void hc_weight_close(hc_weight* weight);

/* y (m, N) = activation(x (m, K) W' + bias + residual), dense and row-major; `epilogue` NULL for none. */
HC_API hc_code hc_linear(const hc_weight* weight, const float* x, size_t m, float* y, const hc_epilogue* epilogue,
                         const hc_exec* exec, hc_error* error);

/* y (m, N2) of two layers, one after the other: the bits are those of hc_linear of `up` with the epilogue `between`, which
 * has no residual, and then of `down` (N2, N1) with `after`. What lies between them, (m, N1), is not stored whole where
 * there are many rows. */
HC_API hc_code hc_feed_forward(const hc_weight* up, const hc_weight* down, const float* x, size_t m, float* y,
                               const hc_epilogue* between, const hc_epilogue* after, const hc_exec* exec,
                               hc_error* error);

/* Output height and width; fails if the window does not fit the padded image or any size is not sane. */
HC_API hc_code hc_conv2d_output(const hc_conv_desc* desc, int64_t* height, int64_t* width, hc_error* error);

/* y (B, N, OH, OW) = activation(conv(x (B, C, H, W), W (N, kh, kw, C / groups)) + bias + residual), channels innermost
 * in K, and in x and y where desc says so. */
HC_API hc_code hc_conv2d(const hc_weight* weight, const hc_conv_desc* desc, const float* x, float* y,
                         const hc_epilogue* epilogue, const hc_exec* exec, hc_error* error);

/* y (B, OH, OW, C) of x (B, H, W, C): the maximum, NaN where one is among them, or the average. */
HC_API hc_code hc_pool(const hc_pool_desc* desc, const float* x, float* y, const hc_exec* exec, hc_error* error);

/* y (batch, rows, columns), in fp32. */
HC_API hc_code hc_matmul(const hc_matmul_desc* desc, const float* x, const float* w, float* y, const hc_exec* exec,
                         hc_error* error);

/* y (rows, columns): a row with a NaN or +infinity in it, or nothing but -infinity, is NaN. */
HC_API hc_code hc_softmax(const hc_softmax_desc* desc, const float* x, float* y, const hc_exec* exec, hc_error* error);

/* y = activation(x + residual), `count` values; the bits are those of the same epilogue behind a product. */
HC_API hc_code hc_activate(hc_isa isa, const hc_epilogue* epilogue, const float* x, size_t count, float* y,
                           const hc_exec* exec, hc_error* error);

/* Checks the steps and their weights, which the caller keeps open for the life of the chain. A step reads inputs of
 * the chain and outputs of earlier steps. */
HC_API hc_code hc_chain_open(const hc_chain_desc* desc, hc_chain** out, hc_error* error);
HC_API void hc_chain_close(hc_chain* chain);

/* The shapes of the outputs for these inputs (as many as the chain has), or why they do not fit. */
HC_API hc_code hc_chain_shapes(const hc_chain* chain, const hc_shape* inputs, hc_shape* outputs, hc_error* error);

/* y[i] (B, C, H, W) of every output from x[i] of every input, dense. */
HC_API hc_code hc_chain_run(const hc_chain* chain, const hc_shape* inputs, const float* const* x, float* const* y,
                            const hc_exec* exec, hc_error* error);

/* y (count, K) = W[ids]. An id in [-N, 0) counts from the end; any other outside [0, N) is HC_OUT_OF_RANGE, and y
 * is then untouched. */
HC_API hc_code hc_embedding(const hc_weight* weight, const int64_t* ids, size_t count, float* y, const hc_exec* exec,
                            hc_error* error);

/* y (batch, queries, heads * value_size) = softmax(scale * q k' + mask) v, head by head. `mask` adds floats, or hides the
 * keys where a bool is 0.
 *
 * HC_INT8: both products are exact sums of 8-bit integers, and y has the same bits on every ISA and for every number of
 * threads. The queries and the keys of a head are rounded as the activations of a layer are, one scale each (sq[i],
 * sk[j]); its values with one scale sv[d] a feature, over all keys. In floats, each operation rounded:
 *     score[j] = float(sum_d q * k) * ((sk[j] * scale) * sq[i]) + mask[j],   most = max_j score[j]
 *     e[j] = round_half_even(65280 * 2^((score[j] - most) * log2(e)))         (2^x to 1.1e-4 of itself)
 *     c[j] = e[j] + (j < 32 ? 128 : c[j - 32] mod 256),   w[j] = c[j] / 256    (integers: 0 to 255)
 *     y[d] = float(sum_j w[j] * v[j][d]) * (sv[d] * (1 / float(sum_j w[j])))
 * So a weight is rounded to 1/255 of the largest, and what that is off by goes to the key 32 places on.
 * With fewer than 8 queries, for which rounding the keys costs more than it saves, and with more than 65536 keys or
 * features, the arithmetic is HC_FLOAT's. */
HC_API hc_code hc_attention(const hc_attention_desc* desc, const float* q, const float* k, const float* v,
                            const void* mask, float* y, const hc_exec* exec, hc_error* error);

/* y (rows, columns) = norm(x + residual); `residual` (rows, columns), or NULL for none. The same bits on every
 * instruction set and for every number of threads. */
HC_API hc_code hc_norm(const hc_norm_desc* desc, const float* x, const float* residual, float* y, const hc_exec* exec,
                       hc_error* error);

/* Checks the sizes. */
HC_API hc_code hc_wide_open(const hc_wide_desc* desc, hc_wide** out, hc_error* error);
HC_API void hc_wide_close(hc_wide* wide);

/* y (m, N) = x (m, K) W' + bias at the candidates of each row of x, and -infinity elsewhere. The same bits on every
 * instruction set and for every number of threads. */
HC_API hc_code hc_wide_linear(const hc_wide* wide, const float* x, size_t m, float* y, const hc_exec* exec,
                              hc_error* error);

/* Checks the sizes, and hashes the place of every tile. */
HC_API hc_code hc_hashed_open(const hc_hashed_desc* desc, hc_hashed** out, hc_error* error);
HC_API void hc_hashed_close(hc_hashed* weight);

/* y (m, N) = x (m, K) W' + bias, in fp32 and any order of summation. */
HC_API hc_code hc_hashed_linear(const hc_hashed* weight, const float* x, size_t m, float* y, const hc_exec* exec,
                                hc_error* error);

/* dense (N, K) = W. */
HC_API hc_code hc_decode(const hc_weight* weight, float* dense, hc_error* error);

#ifdef __cplusplus
}
#endif
#endif
