// The loops of the room, for the compiler to vectorise; an instruction set brings its own products and transposes.
#pragma once

#include "attention/kernel.h"
#include "layout.h"
#include "vector_math.h"

namespace hc {
namespace {

constexpr float kMinusInfinity = -__builtin_inff();

struct PlainTranspose {
    static void to_columns(const float* __restrict from, size_t pitch, int count, size_t size, float scale,
                           float* __restrict to) {
        for (size_t d = 0; d < size; ++d)
            for (int n = 0; n < kPair; ++n) to[d * kPair + n] = n < count ? from[n * pitch + d] * scale : 0.0f;
    }

    static void to_rows(const float* __restrict from, const float* scale, int count, size_t size, float* __restrict to,
                        size_t pitch) {
        for (int n = 0; n < count; ++n)
            for (size_t d = 0; d < size; ++d) to[n * pitch + d] = from[d * kPair + n] * scale[n];
    }
};

struct PlainProduct {
    static void multiply(const float* __restrict from, size_t count, const float* __restrict x, size_t row_step,
                         size_t step, size_t rows, float* __restrict to) {
        for (size_t r = 0; r < rows; ++r, to += kPair) {
            float sum[kPair] = {};
            for (size_t k = 0; k < count; ++k)
                for (int n = 0; n < kPair; ++n) sum[n] += x[r * row_step + k * step] * from[k * kPair + n];
            memcpy(to, sum, sizeof sum);
        }
    }
};

// Blocks of Rows rows and Width columns, each sum in a register. V: one of vector_f32.h.
template <class V, int Rows, int Registers>
struct RegisterProduct {
    static constexpr int width = Registers * V::lanes;

    template <int Now>
    static void block(const float* from, size_t count, const float* x, size_t row_step, size_t step, float* to) {
        typename V::Type sum[Now][Registers];
        unroll<Now * Registers>(
            [&](auto i) HC_LAMBDA { sum[i.value / Registers][i.value % Registers] = V::zero(); });
        for (; count; --count, from += kPair, x += step) {
            typename V::Type w[Registers];
            unroll<Registers>([&](auto c) HC_LAMBDA { w[c.value] = V::load(from + c.value * V::lanes); });
            unroll<Now>([&](auto r) HC_LAMBDA {
                const typename V::Type xk = V::broadcast(x + r.value * row_step);
                unroll<Registers>([&](auto c) HC_LAMBDA {
                    sum[r.value][c.value] = V::fused(w[c.value], xk, sum[r.value][c.value]);
                });
            });
        }
        unroll<Now * Registers>([&](auto i) HC_LAMBDA {
            constexpr int r = i.value / Registers, c = i.value % Registers;
            V::store(to + r * kPair + c * V::lanes, sum[r][c]);
        });
    }

    static void multiply(const float* from, size_t count, const float* x, size_t row_step, size_t step, size_t rows,
                         float* to) {
        size_t r = 0;
        for (; r + Rows <= rows; r += Rows)
            for (int n = 0; n < kPair; n += width)
                block<Rows>(from + n, count, x + r * row_step, row_step, step, to + r * kPair + n);
        for (; r < rows; ++r)
            for (int n = 0; n < kPair; n += width)
                block<1>(from + n, count, x + r * row_step, row_step, step, to + r * kPair + n);
    }
};

void add_mask(const MaskTile& mask, int count, size_t keys, float* __restrict scores) {
    const auto* bools = static_cast<const uint8_t*>(mask.data);
    const auto* floats = static_cast<const float*>(mask.data);
    for (size_t j = 0; j < keys; ++j, scores += kPair) {
        const int64_t key = static_cast<int64_t>(j) * mask.key_step;
        if (mask.query_step == 0) { // one value for all queries
            const float value = mask.bools ? (bools[key] ? 0.0f : kMinusInfinity) : floats[key];
            for (int n = 0; n < kPair; ++n) scores[n] = mask.bools && value ? value : scores[n] + value;
        } else if (mask.bools) {
            for (int n = 0; n < count; ++n) scores[n] = bools[n * mask.query_step + key] ? scores[n] : kMinusInfinity;
        } else {
            for (int n = 0; n < count; ++n) scores[n] += floats[n * mask.query_step + key];
        }
    }
}

void hide_later(size_t first, size_t keys, float* scores) {
    for (size_t j = first + 1; j < keys; ++j)
        for (int n = 0; n < kPair && first + static_cast<size_t>(n) < j; ++n) scores[j * kPair + n] = kMinusInfinity;
}

void exponentiate(float* __restrict scores, size_t keys, float* __restrict sum) {
    float most[kPair];
    for (int n = 0; n < kPair; ++n) most[n] = kMinusInfinity, sum[n] = 0.0f;
    for (size_t j = 0; j < keys; ++j)
        for (int n = 0; n < kPair; ++n) {
            const float score = scores[j * kPair + n];
            most[n] = score > most[n] ? score : most[n];
        }
    for (int n = 0; n < kPair; ++n) most[n] = most[n] == kMinusInfinity ? 0.0f : most[n];
    for (size_t j = 0; j < keys; ++j)
        for (int n = 0; n < kPair; ++n) {
            const float value = exp_f32(scores[j * kPair + n] - most[n]);
            scores[j * kPair + n] = value;
            sum[n] += value;
        }
}

template <class Transpose, class Product>
constexpr Attention attention_loops = {Transpose::to_columns, Transpose::to_rows, Product::multiply,
                                       add_mask,              hide_later,         exponentiate};

} // namespace
} // namespace hc
