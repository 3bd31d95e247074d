#include "ops/quantize.h"

#include <math.h>
#include <string.h>

#include "ops/sizes.h"
#include "rounding.h"

namespace hc {

Quant quant_of(float scale, int32_t zero) {
    const float inverse = 1.0f / scale;
    return {scale, isfinite(inverse) ? inverse : 0.0f, zero};
}

bool is_finite(uint32_t largest) { return largest < kInfinityBits; }

Quant symmetric_quant(uint32_t largest) { return symmetric(largest, kMiddle); }

Quant range_quant(float low, float high) {
    const Quant quant = quant_of((high - low) / 255.0f, 0);
    return {quant.scale, quant.inverse, static_cast<int32_t>(nearbyintf(fminf(-low * quant.inverse, 255.0f)))};
}

size_t quantized_pitch(const hc_weight& weight) {
    const size_t length = round_up(product(weight.blocks, weight.period), 64);
    return length % 512 ? length : length + 64;
}

float quantize_row(const hc_weight& weight, const float* x, uint8_t* q, size_t pitch) {
    const Rowwise& rowwise = weight.kernels.rowwise;
    const Quant quant = symmetric_quant(rowwise.largest(x, weight.columns));
    memset(q + weight.columns, 0, pitch - weight.columns);
    rowwise.quantize(x, weight.columns, quant, q); // of a row that is not finite, anything: its scale is NaN
    return quant.scale;
}

} // namespace hc
