// What surrounds the products: activations to 8 bits, sums to outputs. Bound by memory, written as plain loops
// (loops.h) that the compiler vectorises for each instruction set, with the same result on each.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace hc {

// Where and how the sums of a tile pair are stored:
//     y = (float(sum) * (row_scale[m] * table_scale[n / 16])) * scale[n] + bias[n]
struct Output {
    const float* row_scale; // (rows); null for 1
    float table_scale[2];
    const float* scale; // (32)
    const float* bias;  // (32)
    float* y;
    size_t ldy;
    int columns; // n below this exist: 1 to 32
};

constexpr int kColumnBlock = 16; // rows that store_columns takes at once, at most

struct Rowwise {
    // max |x|, as the bits of a float: above those of FLT_MAX where a value is NaN or infinite.
    uint32_t (*largest)(const float* x, size_t n);

    // q = round_half_even(x * inverse); |x * inverse| < 128. Returns the sum of q.
    int32_t (*quantize)(const float* x, size_t n, float inverse, int8_t* q);

    // The same for channels: q[i * pitch + c] from x[c * plane + i], c < channels; adds the sums over c to sum[i].
    void (*quantize_channels)(const float* x, size_t plane, size_t channels, size_t n, float inverse, int8_t* q,
                              size_t pitch, int32_t* sum);

    // y[m * ldy + n] from sum (rows, 32), int32 or float.
    void (*store_rows_i32)(const int32_t* sum, size_t rows, const Output& out);
    void (*store_rows_f32)(const float* sum, size_t rows, const Output& out);

    // y[n * ldy + m]: rows become columns. 1 to kColumnBlock rows.
    void (*store_columns_i32)(const int32_t* sum, size_t rows, const Output& out);
    void (*store_columns_f32)(const float* sum, size_t rows, const Output& out);
};

} // namespace hc
