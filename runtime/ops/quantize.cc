#include "ops/quantize.h"

#include <math.h>
#include <string.h>

namespace hc {

QuantScale quant_scale(uint32_t largest_bits) {
    float largest;
    memcpy(&largest, &largest_bits, sizeof largest);
    if (!isfinite(largest)) return {0.0f, NAN};
    const float to = 127.0f / largest;
    return {isfinite(to) ? to : 0.0f, largest / 127.0f};
}

size_t quantized_pitch(const hc_weight& weight) {
    const size_t length = round_up(product(weight.blocks, weight.period), 64);
    return length % 512 ? length : length + 64;
}

float quantize_row(const hc_weight& weight, const float* x, int8_t* q, size_t pitch, int32_t* sum) {
    const Rowwise& rowwise = weight.kernels.rowwise;
    const QuantScale scale = quant_scale(rowwise.largest(x, weight.columns));
    const size_t chunks = chunks_of(weight);
    memset(q + weight.columns, 0, pitch - weight.columns);
    if (isnan(scale.from)) { // the scale makes the outputs NaN; the values need only exist
        memset(q, 0, weight.columns);
        memset(sum, 0, chunks * sizeof *sum);
        return scale.from;
    }
    for (size_t c = 0; c < chunks; ++c) {
        const size_t first = c * kSumColumns, left = weight.columns - first;
        sum[c] = rowwise.quantize(x + first, left < kSumColumns ? left : kSumColumns, scale.to, q + first);
    }
    return scale.from;
}

void chunk_sums(const Rows<int8_t>& rows, size_t m, size_t chunks, int32_t* sums) {
    for (size_t i = 0; i < m * chunks; ++i) {
        const int8_t* row = rows.from(i / chunks).data;
        const size_t first = i % chunks * kSumColumns, left = rows.length - first;
        sums[i] = 0;
        for (size_t k = first; k < first + (left < kSumColumns ? left : kSumColumns); ++k) sums[i] += row[k];
    }
}

} // namespace hc
