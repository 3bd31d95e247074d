#include "ops/finish.h"

#include <math.h>

#include "layout.h"
#include "ops/sizes.h"

namespace hc {
namespace {

void scale(const Rowwise& r, const float* sum, size_t rows, const Scaling& scaling, int columns, float* v,
           size_t pitch) {
    r.scale_f32(sum, rows, scaling, columns, v, pitch);
}

void scale(const Rowwise& r, const int32_t* sum, size_t rows, const Scaling& scaling, int columns, float* v,
           size_t pitch) {
    r.scale_i32(sum, rows, scaling, columns, v, pitch);
}

void finish(const Rowwise& r, const float* sum, size_t rows, int columns, const Scaling& scaling, const float* residual,
            const Activation& activation, float* y, size_t pitch) {
    r.finish_f32(sum, rows, columns, scaling, residual, activation, y, pitch);
}

void finish(const Rowwise& r, const int32_t* sum, size_t rows, int columns, const Scaling& scaling,
            const float* residual, const Activation& activation, float* y, size_t pitch) {
    r.finish_i32(sum, rows, columns, scaling, residual, activation, y, pitch);
}

void finish(const Rowwise& r, const float* sum, size_t rows, int columns, const Levels& levels,
            const uint8_t* const* residual, uint8_t* const* y, size_t at) {
    r.levels_f32(sum, rows, columns, levels, residual, y, at);
}

void finish(const Rowwise& r, const int32_t* sum, size_t rows, int columns, const Levels& levels,
            const uint8_t* const* residual, uint8_t* const* y, size_t at) {
    r.levels_i32(sum, rows, columns, levels, residual, y, at);
}

// add(row, rows, block), store(row, rows, block): blocks of at most kBlockRows rows, activated between the two.
template <class Sum, class Add, class Store>
void each_block(const Rowwise& r, const Sum* sum, size_t rows, Scaling scaling, int columns,
                const Activation& activation, const Add& add, const Store& store) {
    alignas(64) float block[kBlockRows * kPair];
    for (size_t row = 0; row < rows; row += kBlockRows) {
        const size_t count = smaller(rows - row, kBlockRows);
        scale(r, sum + row * kPair, count, scaling, columns, block, kPair);
        add(row, count, block);
        if (activation.kind != HC_NONE) {
            if (columns <= kTile) // the second tile has no values
                for (size_t m = 0; m < count; ++m)
                    r.activate(block + m * kPair, kTile, activation);
            else
                r.activate(block, count * kPair, activation);
        }
        store(row, count, block);
        if (scaling.row_scale) scaling.row_scale += kBlockRows;
    }
}

} // namespace

Activation::Activation(hc_activation kind_, float low_, float high_) : Function{kind_, low_, high_} {
    if (kind < HC_NONE || kind >= HC_ACTIVATION_END) fail(HC_INVALID_ARGUMENT, "activation is %d: unknown", kind);
    if (kind == HC_CLIP && !(low <= high))
        fail(HC_INVALID_ARGUMENT, "a clip to [%g, %g]", static_cast<double>(low), static_cast<double>(high));
}

Limits Activation::limits(const Quant& quant) const {
    float least = static_cast<float>(-quant.zero), most = static_cast<float>(255 - quant.zero);
    if (!(quant.inverse > 0)) return {least, most}; // all values are 0
    const float floor = kind == HC_RELU ? 0.0f : kind == HC_CLIP ? low : -INFINITY;
    const float ceiling = kind == HC_CLIP ? high : INFINITY;
    least = fmaxf(least, fminf(nearbyintf(floor * quant.inverse), most));
    return {least, fmaxf(least, fminf(most, nearbyintf(ceiling * quant.inverse)))};
}

Activation activation_of(const hc_epilogue* epilogue) {
    if (!epilogue) return {};
    if (epilogue->size != sizeof(hc_epilogue)) fail(HC_INVALID_ARGUMENT, "epilogue is of another version");
    return {epilogue->activation, epilogue->low, epilogue->high};
}

Levels levels_of(const hc_weight& weight, size_t pair, const Quant& x, const Activation& activation, const Quant& y,
                 const Quant& residual) {
    const Scaling scaling = weight.scaling_of(pair, x.zero);
    Levels levels;
    levels.r_factor = residual.scale * y.inverse;
    const float r_zero = static_cast<float>(residual.zero) * levels.r_factor;
    for (int n = 0; n < kPair; ++n) {
        levels.factor[n] = x.scale * scaling.table_scale[n / kTile] * scaling.scale[n] * y.inverse;
        levels.shift[n] = scaling.bias[n] * y.inverse - r_zero;
        levels.offset[n] = scaling.offset[n];
    }
    levels.limits = activation.limits(y);
    levels.zero = y.zero;
    const float most_sum = 2 * 255 * 127 * static_cast<float>(weight.columns); // the offset is as large as a sum
    const float most_residual = 255 * fabsf(levels.r_factor);
    float most = 0;
    for (int n = 0; n < kPair; ++n) {
        const float size = most_sum * fabsf(levels.factor[n]) + fabsf(levels.shift[n]) + most_residual;
        most = size > most ? size : most;
    }
    levels.fits = most < 0x1p30f;
    return levels;
}

namespace {

Scaling scaling_of(const hc_weight& weight, size_t pair, const RowQuant& x) {
    Scaling scaling = weight.scaling_of(pair, x.zero);
    scaling.row_scale = x.scale;
    return scaling;
}

void add(const Rowwise& r, const ByteResidual& residual, size_t first, size_t rows, int columns, size_t column,
         float* block) {
    if (residual.row) r.add_u8(block, rows, columns, residual.row + first, column, residual.quant);
}

template <class Sum>
void store(const hc_weight& weight, size_t pair, const Sum* sum, size_t first, size_t rows, const RowQuant& x,
           const Activation& activation, const FloatTarget& to) {
    const Rowwise& r = weight.kernels.rowwise;
    const Scaling scaling = scaling_of(weight, pair, x);
    const int columns = weight.columns_of(pair);
    const size_t column = pair * kPair;
    const auto at = [&](size_t row) {
        row += first;
        return to.transposed ? column * to.pitch + row : row * to.pitch + column;
    };
    const float* residual = to.residual ? to.residual + at(0) : nullptr;
    if (!to.transposed && !to.byte_residual.row)
        return finish(r, sum, rows, columns, scaling, residual, activation, to.y + at(0), to.pitch);
    each_block(
        r, sum, rows, scaling, columns, activation,
        [&](size_t row, size_t count, float* block) {
            if (residual) r.add_columns(block, count, columns, residual + row, to.pitch);
            add(r, to.byte_residual, first + row, count, columns, column, block);
        },
        [&](size_t row, size_t count, const float* block) {
            (to.transposed ? r.store_columns : r.store_rows)(block, count, columns, to.y + at(row), to.pitch);
        });
}

template <class Sum>
void store(const hc_weight& weight, size_t pair, const Sum* sum, size_t first, size_t rows, const RowQuant& x,
           const Activation& activation, const ByteTarget& to) {
    const Rowwise& r = weight.kernels.rowwise;
    const int columns = weight.columns_of(pair);
    const size_t column = pair * kPair;
    if (to.levels) {
        const uint8_t* const* residual = to.residual.row ? to.residual.row + first : nullptr;
        return finish(r, sum, rows, columns, to.levels[pair], residual, to.y + first, column);
    }
    const Limits limits = Activation().limits(to.quant);
    each_block(
        r, sum, rows, scaling_of(weight, pair, x), columns, activation,
        [&](size_t row, size_t count, float* block) {
            add(r, to.residual, first + row, count, columns, column, block);
        },
        [&](size_t row, size_t count, const float* block) {
            r.store_u8(block, count, columns, to.quant, limits, to.y + first + row, column);
        });
}

} // namespace

template <class Sum, class Target>
void finish(const hc_weight& weight, size_t pair, const Sum* sum, size_t first, size_t rows, const RowQuant& x,
            const Activation& activation, const Target& to) {
    store(weight, pair, sum, first, rows, x, activation, to);
}

#define HC_FINISH(Sum, Target) \
    template void finish(const hc_weight&, size_t, const Sum*, size_t, size_t, const RowQuant&, const Activation&, \
                         const Target&);
HC_FINISH(int32_t, FloatTarget)
HC_FINISH(float, FloatTarget)
HC_FINISH(int32_t, ByteTarget)
HC_FINISH(float, ByteTarget)

} // namespace hc
