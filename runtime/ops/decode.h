// Rows of a weight, one at a time.
#pragma once

#include "ops/weight.h"

namespace hc {

// The K indices of row n, of a weight that is not dense.
void decode_indices(const hc_weight& weight, size_t n, uint8_t* indices);

// The K values of row n.
void decode_row(const hc_weight& weight, size_t n, float* values);

} // namespace hc
