// The loop of the room over registers of an instruction set: Vector is one of vector_f32.h.
#pragma once

#include "hashed_f32/kernel.h"
#include "inline.h"
#include "layout.h"

namespace hc {
namespace {

// Rows of activations at once, each with Chains sums: a multiplication waits for the last one into the same sum.
template <class Vector, int Rows, int Chains>
HC_INLINE void multiply_rows(const HashedCall& call, int first) {
    constexpr int parts = kTile / Vector::lanes;
    typename Vector::Type part[Chains][Rows][parts];
    unroll<Chains * Rows * parts>([&](auto i) HC_LAMBDA {
        part[i.value / (Rows * parts)][i.value / parts % Rows][i.value % parts] = Vector::zero();
    });
    for (size_t t = 0; t < call.tiles; ++t) {
        const float* x = call.x[call.place[t] & 1] + first * call.pitch + t * kTile;
        const float* tile = call.pool + size_t{call.place[t] >> 1} * kTile * kTile;
        if (t + 1 < call.tiles) { // the next tile lies anywhere
            const float* next = call.pool + size_t{call.place[t + 1] >> 1} * kTile * kTile;
            unroll<kTile>([&](auto j) HC_LAMBDA { __builtin_prefetch(next + j.value * kTile); });
        }
        unroll<kTile>([&](auto j) HC_LAMBDA {
            typename Vector::Type w[parts];
            unroll<parts>([&](auto p) HC_LAMBDA {
                w[p.value] = Vector::load(tile + j.value * kTile + p.value * Vector::lanes);
            });
            unroll<Rows>([&](auto m) HC_LAMBDA {
                const typename Vector::Type xj = Vector::broadcast(x + m.value * call.pitch + j.value);
                unroll<parts>([&](auto p) HC_LAMBDA {
                    auto& to = part[j.value % Chains][m.value][p.value];
                    to = Vector::fused(w[p.value], xj, to);
                });
            });
        });
    }
    unroll<Rows * parts>([&](auto i) HC_LAMBDA {
        constexpr int m = i.value / parts, p = i.value % parts;
        float* to = call.sum + (first + m) * kTile + p * Vector::lanes;
        typename Vector::Type total = Vector::load(to);
        unroll<Chains>([&](auto c) HC_LAMBDA { total = Vector::sum(total, part[c.value][m][p]); });
        Vector::store(to, total);
    });
}

// All rows, at most Most at once.
template <class Vector, int Most>
HC_INLINE void multiply_all(const HashedCall& call) {
    constexpr int few = kTile / Vector::lanes < 4 ? 4 / (kTile / Vector::lanes) : 1; // chains of a single row
    int m = 0;
    for (; m + Most <= call.rows; m += Most) multiply_rows<Vector, Most, 1>(call, m);
    for (; m + 2 <= call.rows; m += 2) multiply_rows<Vector, 2, few / 2 ? few / 2 : 1>(call, m);
    if (m < call.rows) multiply_rows<Vector, 1, few>(call, m);
}

} // namespace
} // namespace hc
