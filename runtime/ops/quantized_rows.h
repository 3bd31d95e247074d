// Rows of activations in 8 bits, one symmetric scale each.
#pragma once

#include "ops/multiply.h"
#include "ops/quantize.h"
#include "ops/scratch.h"

namespace hc {

class QuantizedRows {
   public:
    // Room for `rows` rows that `weight` reads.
    QuantizedRows(const hc_weight& weight, size_t rows)
        : weight_(weight), pitch_(quantized_pitch(weight)), q_(product(rows, pitch_)), row_(rows), scale_(rows) {}

    void set(size_t i, const float* x) {
        row_[i] = &q_[i * pitch_];
        scale_[i] = quantize_row(weight_, x, &q_[i * pitch_], pitch_);
    }

    // From row `first` on.
    ByteRows bytes(size_t first) const { return {&row_[first], kNoOffset, 1, weight_.blocks * weight_.period}; }
    RowQuant quant(size_t first) const { return {&scale_[first], kMiddle}; }

   private:
    const hc_weight& weight_;
    size_t pitch_;
    Scratch<uint8_t> q_;
    Scratch<const uint8_t*> row_;
    Scratch<float> scale_;
};

} // namespace hc
