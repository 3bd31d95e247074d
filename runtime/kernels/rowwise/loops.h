// The loops of the room. Integer arithmetic on the bits of floats lets every compiler vectorise them without
// permission to reorder, so all instruction sets agree to the bit.
#pragma once

#include "activation.h"
#include "inline.h"
#include "layout.h"
#include "rounding.h"
#include "rowwise/kernel.h"

namespace hc {
namespace {

HC_INLINE int32_t quantized(float x, const Quant& quant, const Limits& limits) {
    return rounded(bounded(x * quant.inverse, limits.low, limits.high)) + quant.zero;
}

HC_INLINE Limits whole_range(const Quant& quant) {
    return {static_cast<float>(-quant.zero), static_cast<float>(255 - quant.zero)};
}

HC_INLINE float real_of(uint8_t q, const Quant& quant) {
    return static_cast<float>(static_cast<int32_t>(q) - quant.zero) * quant.scale;
}

uint32_t largest(const float* x, size_t n) {
    uint32_t most = 0;
    for (size_t i = 0; i < n; ++i) {
        const uint32_t size = bits_of(x[i]) & 0x7FFFFFFFu;
        most = most > size ? most : size;
    }
    return most;
}

// Lanes of their own: a minimum of floats may not be reordered otherwise.
void range(const float* x, size_t n, float* low, float* high) {
    constexpr size_t lanes = 16;
    float least[lanes], most[lanes];
    for (size_t j = 0; j < lanes; ++j) least[j] = *low, most[j] = *high;
    size_t i = 0;
    for (; i + lanes <= n; i += lanes)
        for (size_t j = 0; j < lanes; ++j) {
            least[j] = x[i + j] < least[j] ? x[i + j] : least[j];
            most[j] = x[i + j] > most[j] ? x[i + j] : most[j];
        }
    for (; i < n; ++i) {
        least[0] = x[i] < least[0] ? x[i] : least[0];
        most[0] = x[i] > most[0] ? x[i] : most[0];
    }
    for (size_t j = 0; j < lanes; ++j) {
        *low = least[j] < *low ? least[j] : *low;
        *high = most[j] > *high ? most[j] : *high;
    }
}

void quantize(const float* __restrict x, size_t n, const Quant& quant, uint8_t* __restrict q) {
    const Quant by = quant;
    const Limits limits = whole_range(by);
    for (size_t i = 0; i < n; ++i) q[i] = static_cast<uint8_t>(quantized(x[i], by, limits));
}

// A dword for each of `count` pixels: `Channels` planes of x, 3 or 4, in 8 bits.
template <int Channels>
HC_INLINE void quantize_pixels(const float* __restrict x, size_t plane, size_t count, const Quant& by,
                               const Limits& limits, uint32_t* __restrict dword) {
    for (size_t i = 0; i < count; ++i) {
        uint32_t pixel = 0;
        unroll<Channels>([&](auto c) HC_LAMBDA {
            pixel |= static_cast<uint32_t>(quantized(x[c.value * plane + i], by, limits)) << 8 * c.value;
        });
        dword[i] = pixel;
    }
}

void quantize_channels(const float* __restrict x, size_t plane, size_t channels, size_t n, const Quant& quant,
                       uint8_t* __restrict q, size_t pitch) {
    constexpr size_t chunk = 64;
    const Quant by = quant;
    const Limits limits = whole_range(by);
    size_t c = 0;
    for (; c + 4 <= channels; c += 4) // four channels make a dword, stored at once
        for (size_t first = 0; first < n; first += chunk) {
            const size_t count = smaller(chunk, n - first);
            uint32_t dword[chunk];
            quantize_pixels<4>(x + c * plane + first, plane, count, by, limits, dword);
            for (size_t i = 0; i < count; ++i) memcpy(q + (first + i) * pitch + c, dword + i, 4);
        }
    if (channels == 3) { // and so do three, with a byte that the next pixel overwrites
        for (size_t first = 0; first < n; first += chunk) {
            const size_t count = smaller(chunk, n - first);
            uint32_t dword[chunk];
            quantize_pixels<3>(x + first, plane, count, by, limits, dword);
            uint8_t* to = q + first * pitch;
            for (size_t i = 0; i + 1 < count; ++i) memcpy(to + i * pitch, dword + i, 4);
            memcpy(to + (count - 1) * pitch, dword + count - 1, 3);
        }
        return;
    }
    for (; c < channels; ++c)
        for (size_t first = 0; first < n; first += chunk) {
            const size_t count = smaller(chunk, n - first);
            const float* from = x + c * plane + first;
            uint8_t byte[chunk];
            for (size_t i = 0; i < count; ++i) byte[i] = static_cast<uint8_t>(quantized(from[i], by, limits));
            for (size_t i = 0; i < count; ++i) q[(first + i) * pitch + c] = byte[i];
        }
}

void interleave(const float* __restrict x, size_t plane, size_t channels, size_t n, float* __restrict y, size_t pitch) {
    size_t c = 0;
    for (; c + 4 <= channels; c += 4) // four channels are stored at once
        for (size_t i = 0; i < n; ++i) {
            const float* from = x + c * plane + i;
            const float four[4] = {from[0], from[plane], from[2 * plane], from[3 * plane]};
            memcpy(y + i * pitch + c, four, sizeof four);
        }
    for (; c < channels; ++c)
        for (size_t i = 0; i < n; ++i) y[i * pitch + c] = x[c * plane + i];
}

void dequantize(const uint8_t* __restrict q, size_t n, const Quant& quant, float* __restrict y) {
    const Quant by = quant;
    for (size_t i = 0; i < n; ++i) y[i] = real_of(q[i], by);
}

void dequantize_sums(const int32_t* __restrict sum, size_t n, int32_t offset, float factor, float* __restrict y) {
    for (size_t i = 0; i < n; ++i) y[i] = static_cast<float>(sum[i] - offset) * factor;
}

void add(float* __restrict x, const float* __restrict y, size_t n) {
    for (size_t i = 0; i < n; ++i) x[i] += y[i];
}

HC_INLINE float row_scale(const Scaling& scaling, size_t m) { return scaling.row_scale ? scaling.row_scale[m] : 1.0f; }

HC_INLINE float without_offset(int32_t sum, int32_t offset) { return static_cast<float>(sum - offset); }
HC_INLINE float without_offset(float sum, int32_t) { return sum; }

template <class Sum>
void scale(const Sum* __restrict sum, size_t rows, const Scaling& scaling, int columns, float* __restrict v,
           size_t pitch) {
    for (size_t m = 0; m < rows; ++m, sum += kPair, v += pitch)
        for (int tile = 0; tile * kTile < columns; ++tile) {
            const float both = row_scale(scaling, m) * scaling.table_scale[tile];
            const int first = tile * kTile;
            for (int n = first; n < first + kTile; ++n)
                v[n] = without_offset(sum[n], scaling.offset[n]) * both * scaling.scale[n] + scaling.bias[n];
        }
}

// Whole rows of a pair. The columns' constants are held where no store to y can change them.
template <bool Residual, class Sum, class F>
HC_INLINE void finish_pair(const Sum* sum, size_t rows, const Scaling& scaling, const float* r, F&& f, float* y,
                           size_t pitch) {
    float table_scale[kPair], column_scale[kPair], bias[kPair];
    int32_t offset[kPair];
    for (int n = 0; n < kPair; ++n) table_scale[n] = scaling.table_scale[n / kTile];
    memcpy(column_scale, scaling.scale, sizeof column_scale);
    memcpy(bias, scaling.bias, sizeof bias);
    memcpy(offset, scaling.offset, sizeof offset);
    for (size_t m = 0; m < rows; ++m, sum += kPair, y += pitch) {
        const float own = row_scale(scaling, m);
        float* __restrict to = y;
        for (int n = 0; n < kPair; ++n) {
            float v = without_offset(sum[n], offset[n]) * (own * table_scale[n]) * column_scale[n] + bias[n];
            if constexpr (Residual) v += r[n];
            to[n] = f(v);
        }
        if constexpr (Residual) r += pitch;
    }
}

// Some columns of a tile in one row.
template <bool Residual, class Sum, class F>
HC_INLINE void finish_tile(const Sum* sum, float both, const Scaling& scaling, int first, int count, const float* r,
                           F&& f, float* y) {
    const size_t bytes = static_cast<size_t>(count) * sizeof(float);
    float v[kTile], other[kTile] = {};
    if constexpr (Residual) memcpy(other, r + first, bytes);
    for (int n = 0; n < kTile; ++n) {
        const int column = first + n;
        const float plain = without_offset(sum[column], scaling.offset[column]) * both * scaling.scale[column] +
                            scaling.bias[column];
        v[n] = f(Residual ? plain + other[n] : plain);
    }
    memcpy(y + first, v, bytes);
}

template <bool Residual, class Sum, class F>
HC_INLINE void finish_rows(const Sum* sum, size_t rows, int columns, const Scaling& scaling, const float* r, F&& f,
                           float* y, size_t pitch) {
    if (columns == kPair) return finish_pair<Residual>(sum, rows, scaling, r, f, y, pitch);
    for (size_t m = 0; m < rows; ++m, sum += kPair, y += pitch) {
        for (int first = 0; first < columns; first += kTile) {
            const float both = row_scale(scaling, m) * scaling.table_scale[first / kTile];
            const int count = columns - first < kTile ? columns - first : kTile;
            finish_tile<Residual>(sum, both, scaling, first, count, r, f, y);
        }
        if constexpr (Residual) r += pitch;
    }
}

template <class Sum>
void finish(const Sum* sum, size_t rows, int columns, const Scaling& scaling, const float* r, const Function& function,
            float* y, size_t pitch) {
    with_function(function, [&](auto f) HC_LAMBDA {
        if (r)
            finish_rows<true>(sum, rows, columns, scaling, r, f, y, pitch);
        else
            finish_rows<false>(sum, rows, columns, scaling, r, f, y, pitch);
    });
}

void activate(float* x, size_t n, const Function& function) {
    with_function(function, [&](auto f) HC_LAMBDA {
        for (size_t i = 0; i < n; ++i) x[i] = f(x[i]);
    });
}

void add_columns(float* __restrict block, size_t rows, int columns, const float* __restrict r, size_t pitch) {
    for (int n = 0; n < columns; ++n)
        for (size_t m = 0; m < rows; ++m) block[m * kPair + n] += r[n * pitch + m];
}

void add_u8(float* __restrict block, size_t rows, int columns, const uint8_t* const* r, size_t at, const Quant& quant) {
    const Quant by = quant;
    for (size_t m = 0; m < rows; ++m)
        for (int n = 0; n < columns; ++n) block[m * kPair + n] += real_of(r[m][at + n], by);
}

void store_rows(const float* block, size_t rows, int columns, float* y, size_t pitch) {
    for (size_t m = 0; m < rows; ++m)
        if (columns == kPair)
            memcpy(y + m * pitch, block + m * kPair, kPair * sizeof *y);
        else
            memcpy(y + m * pitch, block + m * kPair, static_cast<size_t>(columns) * sizeof *y);
}

void store_columns(const float* block, size_t rows, int columns, float* y, size_t pitch) {
    for (int n = 0; n < columns; ++n)
        for (size_t m = 0; m < rows; ++m) y[n * pitch + m] = block[m * kPair + n];
}

// One tile of bytes. A load of both tiles together would wait for the stores of each.
HC_INLINE void store_tile(const uint8_t* byte, int count, uint8_t* y) {
    if (count >= kTile)
        memcpy(y, byte, kTile);
    else
        memcpy(y, byte, static_cast<size_t>(count));
}

void store_u8(const float* block, size_t rows, int columns, const Quant& quant, const Limits& limits, uint8_t* const* y,
              size_t at) {
    const Quant by = quant;
    const Limits within = limits;
    for (size_t m = 0; m < rows; ++m)
        for (int first = 0; first < columns; first += kTile) {
            uint8_t byte[kTile];
            for (int n = 0; n < kTile; ++n) // beyond `columns`, anything
                byte[n] = static_cast<uint8_t>(quantized(block[m * kPair + first + n], by, within));
            store_tile(byte, columns - first, y[m] + at + first);
        }
}

template <bool Residual, class Sum>
void level_rows(const Sum* sum, size_t rows, int columns, const Levels& levels, const uint8_t* const* r,
                uint8_t* const* y, size_t at) {
    const Levels by = levels;
    for (size_t m = 0; m < rows; ++m, sum += kPair)
        for (int first = 0; first < columns; first += kTile) {
            uint8_t byte[kTile], other[kTile] = {};
            if constexpr (Residual) store_tile(r[m] + at + first, columns - first, other);
            for (int n = 0; n < kTile; ++n) {
                const int column = first + n;
                float v = without_offset(sum[column], by.offset[column]) * by.factor[column] + by.shift[column];
                if constexpr (Residual) v += static_cast<float>(other[n]) * by.r_factor;
                byte[n] = static_cast<uint8_t>(rounded(bounded(v, by.limits.low, by.limits.high)) + by.zero);
            }
            store_tile(byte, columns - first, y[m] + at + first);
        }
}

template <class Sum>
void levels(const Sum* sum, size_t rows, int columns, const Levels& by, const uint8_t* const* r, uint8_t* const* y,
            size_t at) {
    (r ? level_rows<true, Sum> : level_rows<false, Sum>)(sum, rows, columns, by, r, y, at);
}

void dequantize_channels(const uint8_t* __restrict q, size_t pitch, size_t channels, size_t n, const Quant& quant,
                         float* __restrict y, size_t plane) {
    constexpr size_t chunk = 16;
    const Quant by = quant;
    for (size_t first = 0; first < n; first += chunk) {
        const size_t count = smaller(chunk, n - first);
        for (size_t c = 0; c < channels; ++c)
            for (size_t i = first; i < first + count; ++i) y[c * plane + i] = real_of(q[i * pitch + c], by);
    }
}

// For n neighbours; tap(t) is where the first of them is.
template <class Tap>
HC_INLINE void max_of(const Tap& tap, size_t count, size_t n, uint8_t* __restrict y) {
    constexpr size_t chunk = 64; // stays in registers from tap to tap
    size_t i = 0;
    for (; i + chunk <= n; i += chunk) {
        uint8_t most[chunk];
        memcpy(most, tap(0) + i, chunk);
        for (size_t t = 1; t < count; ++t) {
            const uint8_t* x = tap(t) + i;
            for (size_t j = 0; j < chunk; ++j) most[j] = x[j] > most[j] ? x[j] : most[j];
        }
        memcpy(y + i, most, chunk);
    }
    for (; i < n; ++i) {
        y[i] = tap(0)[i];
        for (size_t t = 1; t < count; ++t) y[i] = tap(t)[i] > y[i] ? tap(t)[i] : y[i];
    }
}

void max_u8(const uint8_t* const* taps, size_t count, size_t n, uint8_t* __restrict y) {
    max_of([&](size_t t) HC_LAMBDA { return taps[t]; }, count, n, y);
}

void max_windows(const uint8_t* x, size_t step, size_t windows, size_t tap, size_t count, size_t n,
                 uint8_t* __restrict y) {
    for (size_t i = 0; i < windows; ++i)
        max_of([&](size_t t) HC_LAMBDA { return x + i * step + t * tap; }, count, n, y + i * n);
}

void sum_u8(const uint8_t* const* taps, size_t count, size_t n, int32_t* __restrict sum) {
    constexpr size_t chunk = 64; // stays in registers from tap to tap
    size_t i = 0;
    for (; i + chunk <= n; i += chunk) {
        int32_t total[chunk] = {};
        for (size_t t = 0; t < count; ++t) {
            const uint8_t* x = taps[t] + i;
            for (size_t j = 0; j < chunk; ++j) total[j] += x[j];
        }
        memcpy(sum + i, total, sizeof total);
    }
    for (; i < n; ++i) {
        sum[i] = 0;
        for (size_t t = 0; t < count; ++t) sum[i] += taps[t][i];
    }
}

// y[i] = all taps of i, joined one after another.
template <class Join>
HC_INLINE void join_taps(const float* const* taps, size_t count, size_t n, float* __restrict y, const Join& join) {
    constexpr size_t chunk = 64; // stays in registers from tap to tap
    size_t i = 0;
    for (; i + chunk <= n; i += chunk) {
        float joined[chunk];
        memcpy(joined, taps[0] + i, sizeof joined);
        for (size_t t = 1; t < count; ++t) {
            const float* x = taps[t] + i;
            for (size_t j = 0; j < chunk; ++j) joined[j] = join(joined[j], x[j]);
        }
        memcpy(y + i, joined, sizeof joined);
    }
    for (; i < n; ++i) {
        y[i] = taps[0][i];
        for (size_t t = 1; t < count; ++t) y[i] = join(y[i], taps[t][i]);
    }
}

void max_f32(const float* const* taps, size_t count, size_t n, float* __restrict y) {
    join_taps(taps, count, n, y, [](float a, float b) HC_LAMBDA {
        const float most = b > a ? b : a; // a, where it is NaN
        return b == b ? most : b;
    });
}

void sum_f32(const float* const* taps, size_t count, size_t n, float* __restrict sum) {
    join_taps(taps, count, n, sum, [](float a, float b) HC_LAMBDA { return a + b; });
}

constexpr Rowwise loops() {
    return {largest,
            range,
            quantize,
            quantize_channels,
            interleave,
            dequantize,
            dequantize_sums,
            finish<int32_t>,
            finish<float>,
            scale<int32_t>,
            scale<float>,
            add_columns,
            add_u8,
            add,
            activate,
            store_rows,
            store_columns,
            store_u8,
            levels<int32_t>,
            levels<float>,
            dequantize_channels,
            max_u8,
            max_windows,
            sum_u8,
            max_f32,
            sum_f32};
}

} // namespace
} // namespace hc
