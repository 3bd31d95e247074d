// Activations to 8 bits.
#pragma once

#include "ops/multiply.h"

namespace hc {

// The factor from floats to 8 bits and back: {0, NaN} where the largest is not finite.
struct QuantScale {
    float to, from;
};

// `largest` as Rowwise::largest returns it.
QuantScale quant_scale(uint32_t largest);

// Bytes from one quantised row to the next: K in whole blocks and lines, and not a multiple of 512, which would put
// the same column of all rows in one set of the cache.
size_t quantized_pitch(const hc_weight& weight);

// One row to q, zeros up to `pitch`, its sums by chunk to `sum`. Returns the scale.
float quantize_row(const hc_weight& weight, const float* x, int8_t* q, size_t pitch, int32_t* sum);

// sums[m * chunks + c] over kSumColumns values each of rows in one segment.
void chunk_sums(const Rows<int8_t>& rows, size_t m, size_t chunks, int32_t* sums);

} // namespace hc
