// What becomes of the sums of a tile pair: scaled, a residual added, activated, stored.
#pragma once

#include "ops/weight.h"

namespace hc {

constexpr size_t kRowsAtOnce = 64; // rows whose sums lie on the stack, and that share one decoded panel

struct Activation : Function {
    // Fails on an unknown kind, or bounds that are none.
    Activation(hc_activation kind, float low, float high);
    Activation() : Function{HC_NONE, 0, 0} {}

    bool is_clip() const { return kind <= HC_CLIP; } // rounding and clipping may change places

    // The limits of round(v * inverse) that clip v and keep q in 0..255.
    Limits limits(const Quant& quant) const;
};

Activation activation_of(const hc_epilogue* epilogue); // of none, where that is null

// A residual in 8 bits: one pointer a row, columns innermost.
struct ByteResidual {
    const uint8_t* const* row = nullptr; // null for none
    Quant quant{};
};

// Floats in rows y[m * pitch + n], or transposed y[n * pitch + m]; a residual of floats lies as y does.
struct FloatTarget {
    float* y;
    size_t pitch;
    bool transposed;
    const float* residual; // null for none
    ByteResidual byte_residual;
};

// Bytes, one pointer a row, columns innermost: pixels of one image.
struct ByteTarget {
    uint8_t* const* y;
    Quant quant;
    ByteResidual residual;
    const Levels* levels; // by pair, as levels_of makes them; null unless the activation is none or a clip
};

// How rows of activations were made integers: scales (rows), null for 1, and one zero point.
struct RowQuant {
    const float* scale = nullptr;
    int32_t zero = 0;
};

// Sums of activations in `x` to bytes in `y`, in one step; `residual` is that of a residual in 8 bits.
Levels levels_of(const hc_weight& weight, size_t pair, const Quant& x, const Activation& activation, const Quant& y,
                 const Quant& residual);

// Rows [first, first + rows) of the columns of `pair`, from their sums (rows, 32). x.scale is that of `first`.
template <class Sum, class Target>
void finish(const hc_weight& weight, size_t pair, const Sum* sum, size_t first, size_t rows, const RowQuant& x,
            const Activation& activation, const Target& to);

} // namespace hc
