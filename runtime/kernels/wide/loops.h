// The loops of the room that the compiler vectorises, and sketches one by one.
#pragma once

#include <string.h>

#include "sums.h"
#include "wide/kernel.h"

namespace hc {
namespace {

constexpr size_t kStrip = 64;  // projections whose sums stay in registers
constexpr size_t kAhead = 2;   // rows that are asked for while one is multiplied
constexpr size_t kFloats = 16; // of a cache line
constexpr size_t kLine = 64;   // its bytes

template <size_t Count>
HC_INLINE void project_strip(const float* __restrict x, size_t k, const float* __restrict planes, size_t pitch,
                             const float* __restrict start, float* __restrict y) {
    float sum[Count];
    for (size_t j = 0; j < Count; ++j) sum[j] = start[j];
    for (size_t i = 0; i < k; ++i, planes += pitch)
        for (size_t j = 0; j < Count; ++j) sum[j] += x[i] * planes[j];
    for (size_t j = 0; j < Count; ++j) y[j] = sum[j];
}

void project(const float* x, size_t k, const float* planes, const float* start, size_t count, float* y) {
    size_t j = 0;
    for (; j + kStrip <= count; j += kStrip) project_strip<kStrip>(x, k, planes + j, count, start + j, y + j);
    for (; j + kFloats <= count; j += kFloats) project_strip<kFloats>(x, k, planes + j, count, start + j, y + j);
    for (; j < count; ++j) project_strip<1>(x, k, planes + j, count, start + j, y + j);
}

void products(const float* __restrict x, size_t k, const float* __restrict weight, const float* __restrict bias,
              const uint32_t* __restrict rows, size_t count, float* __restrict y) {
    for (size_t i = 0; i < count; ++i) {
        if (i + kAhead < count) {
            const float* next = weight + rows[i + kAhead] * k;
            for (size_t at = 0; at < k; at += kFloats) __builtin_prefetch(next + at);
        }
        const size_t n = rows[i];
        const float* __restrict row = weight + n * k;
        y[n] = sum_of(k, [&](size_t j) HC_LAMBDA { return x[j] * row[j]; }) + bias[n];
    }
}

// A byte of codes is 8 / Bits weights, which one load brings. Blocks of `kParts` are added as `sum_of` does.
template <size_t Bits>
HC_INLINE void coded_rows(const float* __restrict x, size_t k, const WideCodes& weight, const float* __restrict bias,
                          const uint32_t* __restrict rows, size_t count, float* __restrict y) {
    constexpr size_t kPerByte = 8 / Bits, kBytes = kParts / kPerByte;
    const size_t pitch = (k + kPerByte - 1) / kPerByte;
    const float* __restrict bytes = weight.bytes;
    for (size_t i = 0; i < count; ++i) {
        if (i + kAhead < count) {
            const uint8_t* next = weight.codes + rows[i + kAhead] * pitch;
            for (size_t at = 0; at < pitch; at += kLine) __builtin_prefetch(next + at);
        }
        const size_t n = rows[i];
        const uint8_t* __restrict codes = weight.codes + n * pitch;
        float part[kParts] = {}, value[kParts];
        size_t at = 0;
        for (; at + kParts <= k; at += kParts, codes += kBytes) {
            for (size_t b = 0; b < kBytes; ++b)
                memcpy(value + b * kPerByte, bytes + codes[b] * kPerByte, sizeof(float) * kPerByte);
            for (size_t j = 0; j < kParts; ++j) part[j] += x[at + j] * value[j];
        }
        for (size_t j = 0; at + j < k; ++j)
            part[j] += x[at + j] * bytes[codes[j / kPerByte] * kPerByte + j % kPerByte];
        y[n] = joined<kParts / 2>(part) * weight.scale[n] + bias[n];
    }
}

void coded_products(const float* x, size_t k, const WideCodes& weight, const float* bias, const uint32_t* rows,
                    size_t count, float* y) {
    if (weight.bits == 1) return coded_rows<1>(x, k, weight, bias, rows, count, y);
    if (weight.bits == 2) return coded_rows<2>(x, k, weight, bias, rows, count, y);
    if (weight.bits == 4) return coded_rows<4>(x, k, weight, bias, rows, count, y);
    return coded_rows<8>(x, k, weight, bias, rows, count, y);
}

void near_one_by_one(const uint8_t* sketches, size_t pitch, const uint8_t* sketch, size_t bytes, const uint8_t* limit,
                     size_t count, uint8_t* near) {
    for (size_t n = 0; n < count; ++n) {
        unsigned distance = 0;
        for (size_t b = 0; b < bytes; ++b) distance += __builtin_popcount(sketches[b * pitch + n] ^ sketch[b]);
        near[n] = (distance < 255 ? distance : 255) <= limit[n];
    }
}

using NearLanes = void(const uint8_t* sketches, size_t pitch, const uint8_t* sketch, size_t bytes,
                       const uint8_t* limit, uint8_t* near);

// `near_lanes` does `Lanes` rows at once; what is left goes one by one.
template <size_t Lanes, NearLanes near_lanes>
void near_by(const uint8_t* sketches, size_t pitch, const uint8_t* sketch, size_t bytes, const uint8_t* limit,
             size_t count, uint8_t* near) {
    size_t n = 0;
    for (; n + Lanes <= count; n += Lanes) near_lanes(sketches + n, pitch, sketch, bytes, limit + n, near + n);
    near_one_by_one(sketches + n, pitch, sketch, bytes, limit + n, count - n, near + n);
}

} // namespace
} // namespace hc
