// Activations to 8 bits.
#pragma once

#include "hashcompile.h"
#include "ops/weight.h"

namespace hc {

constexpr int32_t kMiddle = 128; // the zero point of symmetric activations

// round(x * inverse) is 0 where the scale has no inverse.
Quant quant_of(float scale, int32_t zero);

// Symmetric: amax goes to 255 - 128. `largest` as Rowwise::largest returns it; a scale of NaN where that is not finite.
Quant symmetric_quant(uint32_t largest);

// From the least and the greatest value, either of which may be 0.
Quant range_quant(float low, float high);

bool is_finite(uint32_t largest);

// Bytes from one quantised row to the next: K in whole blocks and lines, and not a multiple of 512, which would put
// the same column of all rows in one set of the cache.
size_t quantized_pitch(const hc_weight& weight);

// One row of K activations to q, symmetric, zeros from K to `pitch`. Returns the scale.
float quantize_row(const hc_weight& weight, const float* x, uint8_t* q, size_t pitch);

} // namespace hc
