// What surrounds the products: activations to 8 bits, sums to outputs. Bound by memory, written as plain loops
// (loops.h) that the compiler vectorises for each instruction set, with the same result on each.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace hc {

// Sums of a tile pair become values:
//     v[m][n] = float(sum[m][n] - offset[n]) * (row_scale[m] * table_scale[n / 16]) * scale[n] + bias[n]
// Sums that are floats have no offset.
struct Scaling {
    const float* row_scale; // (rows); null for 1
    float table_scale[2];
    const float* scale; // (32)
    const float* bias;  // (32)
    int32_t offset[32]; // zero point of the activations * sum of the row's centroids
};

// real = scale * (q - zero), q in 0..255
struct Quant {
    float scale, inverse; // inverse = 1 / scale
    int32_t zero;
};

// Limits of round(v * inverse): what a clip of v comes to, and the range of q - zero.
struct Limits {
    float low, high;
};

// Sums of a tile pair become 8 bits, where the activation is none or a clip:
//     y[m][n] = clamp(round_half_even(float(sum[m][n] - offset[n]) * factor[n] + shift[n] + r[m][n] * r_factor)) + zero
// with the limits as those of the clamp. Sums that are floats have no offset.
struct Levels {
    float factor[32], shift[32];
    int32_t offset[32];
    float r_factor; // of a residual in 8 bits
    Limits limits;
    int32_t zero;
    bool fits; // what is rounded is less than 2^31, whatever the sums
};

// An activation.
struct Function {
    int32_t kind;    // hc_activation
    float low, high; // of HC_CLIP
};

constexpr int kBlockRows = 16; // rows of a block of values: float (rows, 32)

struct Rowwise {
    // max |x|, as the bits of a float: above those of FLT_MAX where a value is NaN or infinite.
    uint32_t (*largest)(const float* x, size_t n);

    // Least and greatest of x and what `low` and `high` hold already.
    void (*range)(const float* x, size_t n, float* low, float* high);

    // q = clamp(round_half_even(x * inverse) + zero, 0, 255)
    void (*quantize)(const float* x, size_t n, const Quant& quant, uint8_t* q);

    // The same for channels: q[i * pitch + c] from x[c * plane + i], c < channels.
    void (*quantize_channels)(const float* x, size_t plane, size_t channels, size_t n, const Quant& quant, uint8_t* q,
                              size_t pitch);

    // y[i * pitch + c] = x[c * plane + i], c < channels
    void (*interleave)(const float* x, size_t plane, size_t channels, size_t n, float* y, size_t pitch);

    // Real values of bytes; of sums: (sum - offset) * factor.
    void (*dequantize)(const uint8_t* q, size_t n, const Quant& quant, float* y);
    void (*dequantize_sums)(const int32_t* sum, size_t n, int32_t offset, float factor, float* y);

    // y[m * pitch + n] = f(v + r[m * pitch + n]) from sums (rows, 32), in one pass; no `r` where it is null.
    void (*finish_i32)(const int32_t* sum, size_t rows, int columns, const Scaling& scaling, const float* r,
                       const Function& f, float* y, size_t pitch);
    void (*finish_f32)(const float* sum, size_t rows, int columns, const Scaling& scaling, const float* r,
                       const Function& f, float* y, size_t pitch);

    // One step after another, for what is not done in one pass. First whole tiles of values v[m * pitch + n] from sums
    // (rows, 32); a tile beyond `columns` may have no sums.
    void (*scale_i32)(const int32_t* sum, size_t rows, const Scaling& scaling, int columns, float* v, size_t pitch);
    void (*scale_f32)(const float* sum, size_t rows, const Scaling& scaling, int columns, float* v, size_t pitch);

    // block += a residual: floats r[n * pitch + m], or 8 bits.
    void (*add_columns)(float* block, size_t rows, int columns, const float* r, size_t pitch);
    void (*add_u8)(float* block, size_t rows, int columns, const uint8_t* const* r, size_t at, const Quant& quant);

    void (*add)(float* x, const float* y, size_t n); // x += y

    void (*activate)(float* x, size_t n, const Function& f); // x = f(x)

    // A block to y[m * pitch + n], or transposed to y[n * pitch + m], or in 8 bits to y[m][at + n].
    void (*store_rows)(const float* block, size_t rows, int columns, float* y, size_t pitch);
    void (*store_columns)(const float* block, size_t rows, int columns, float* y, size_t pitch);
    void (*store_u8)(const float* block, size_t rows, int columns, const Quant& quant, const Limits& limits,
                     uint8_t* const* y, size_t at);

    // y[m][at + n] from sums (rows, 32) and r[m][at + n], in one pass; no `r` where it is null.
    void (*levels_i32)(const int32_t* sum, size_t rows, int columns, const Levels& levels, const uint8_t* const* r,
                       uint8_t* const* y, size_t at);
    void (*levels_f32)(const float* sum, size_t rows, int columns, const Levels& levels, const uint8_t* const* r,
                       uint8_t* const* y, size_t at);

    // y[c * plane + i] = real value of q[i * pitch + c]
    void (*dequantize_channels)(const uint8_t* q, size_t pitch, size_t channels, size_t n, const Quant& quant, float* y,
                                size_t plane);

    // For n channels, over `count` taps: the maximum; the sum.
    void (*max_u8)(const uint8_t* const* taps, size_t count, size_t n, uint8_t* y);
    // For windows that are neighbours: y[i * n + c], c < n, the maximum of x[i * step + t * tap + c] over t < count.
    void (*max_windows)(const uint8_t* x, size_t step, size_t windows, size_t tap, size_t count, size_t n, uint8_t* y);
    void (*sum_u8)(const uint8_t* const* taps, size_t count, size_t n, int32_t* sum);
    // The same of floats; a maximum is NaN where one of them is. The sum is in the order of the taps.
    void (*max_f32)(const float* const* taps, size_t count, size_t n, float* y);
    void (*sum_f32)(const float* const* taps, size_t count, size_t n, float* sum);
};

} // namespace hc
