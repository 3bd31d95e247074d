// Rows of activations times one tile pair of a weight: the sums.
#pragma once

#include "ops/finish.h"
#include "ops/sizes.h"
#include "ops/weight.h"

namespace hc {

// Rows of K floats: row m starts at data + m * pitch.
struct FloatRows {
    const float* data;
    size_t pitch;

    FloatRows from(size_t row) const { return {data + row * pitch, pitch}; }
};

// Rows of K bytes, read in place. A row is `segments` runs of `length` values; run s of row m starts at row[m] +
// segment[s]. A matrix has one run; an image, one for each row of the window. Whole blocks of codes fit a run: `length` is a multiple of the period, the
// last run padded with zeros.
struct ByteRows {
    const uint8_t* const* row;
    const size_t* segment;
    size_t segments;
    size_t length;
};

constexpr size_t kNoOffset[1] = {0};

// The rows [first, first + m) of `to` that will be stored over, and added: they come while the product is computed.
void ask_for(const hc_weight& weight, size_t pair, size_t first, size_t m, const FloatTarget& to);

// sum (m, 32); m <= kRowsAtOnce.
void multiply_f32(const hc_weight& weight, size_t pair, const FloatRows& x, size_t m, float* sum);
void multiply_i8(const hc_weight& weight, size_t pair, const ByteRows& x, size_t m, int32_t* sum);

// For rows longer than kSumColumns, whose sums may not fit int32: sums without the zero point, rounded to float once.
// The rows have one run.
void multiply_wide(const hc_weight& weight, size_t pair, const ByteRows& x, size_t m, int32_t zero, float* sum);

// multiply_i8 or multiply_wide, and finish: m rows, as rows [first, first + m) of `to`.
template <class Target>
void multiply_and_finish(const hc_weight& weight, size_t pair, const ByteRows& x, size_t m, const RowQuant& quant,
                         size_t first, const Activation& activation, const Target& to);

} // namespace hc
