// Rows of activations times one tile pair of a weight, stored.
#pragma once

#include "ops/sizes.h"
#include "ops/weight.h"

namespace hc {

constexpr size_t kRowsAtOnce = 64; // rows that share one decoded panel, and one set of sums on the stack

// Rows of K activations, read in place. A row is `segments` runs of `length` values; run s of row m starts at
// data + m * pitch + segment[s]. A matrix has one run; an image, one for each row of the window.
template <class T>
struct Rows {
    const T* data;
    size_t pitch;
    const size_t* segment;
    size_t segments;
    size_t length;

    Rows from(size_t row) const { return {data + row * pitch, pitch, segment, segments, length}; }
};

constexpr size_t kNoOffset[1] = {0};

// 8-bit rows. Whole blocks of codes fit a run: `length` is a multiple of the period, the last run padded with zeros.
struct QuantizedRows {
    Rows<int8_t> rows;
    const int32_t* sum; // (rows, chunks_of) sums over kSumColumns columns each; with two chunks, one segment
    const float* scale; // (rows)
};

// Where a pair's outputs go: y[m * pitch + n], or transposed y[n * pitch + m].
struct Target {
    float* y;
    size_t pitch;
    bool transposed;
};

void multiply_f32(const hc_weight& weight, size_t pair, const Rows<float>& x, size_t m, const Target& to);
void multiply_i8(const hc_weight& weight, size_t pair, const QuantizedRows& x, size_t m, const Target& to);

inline size_t chunks_of(const hc_weight& weight) {
    return weight.columns > kSumColumns ? ceil_div(weight.columns, kSumColumns) : 1;
}

} // namespace hc
