// The loops of the room. Integer arithmetic on the bits of floats lets every compiler vectorise them without
// permission to reorder, so all instruction sets agree to the bit.
#pragma once

#include "inline.h"
#include "layout.h"
#include "rowwise/kernel.h"

namespace hc {
namespace {

HC_INLINE int32_t rounded(float x) {
    return static_cast<int32_t>(bits_of(x + kRoundingShift) - bits_of(kRoundingShift));
}

uint32_t largest(const float* x, size_t n) {
    uint32_t most = 0;
    for (size_t i = 0; i < n; ++i) {
        const uint32_t size = bits_of(x[i]) & 0x7FFFFFFFu;
        most = most > size ? most : size;
    }
    return most;
}

int32_t quantize(const float* __restrict x, size_t n, float inverse, int8_t* __restrict q) {
    int32_t sum = 0;
    for (size_t i = 0; i < n; ++i) {
        const int32_t value = rounded(x[i] * inverse);
        q[i] = static_cast<int8_t>(value);
        sum += value;
    }
    return sum;
}

void quantize_channels(const float* __restrict x, size_t plane, size_t channels, size_t n, float inverse,
                       int8_t* __restrict q, size_t pitch, int32_t* __restrict sum) {
    constexpr size_t chunk = 64;
    size_t c = 0;
    for (; c + 4 <= channels; c += 4) // four channels make a dword, stored at once
        for (size_t first = 0; first < n; first += chunk) {
            const size_t count = smaller(chunk, n - first);
            const float* from = x + c * plane + first;
            uint32_t dword[chunk];
            for (size_t i = 0; i < count; ++i) {
                const int32_t a = rounded(from[i] * inverse), b = rounded(from[plane + i] * inverse),
                              d = rounded(from[2 * plane + i] * inverse), e = rounded(from[3 * plane + i] * inverse);
                sum[first + i] += a + b + d + e;
                dword[i] = (a & 255u) | (b & 255u) << 8 | (d & 255u) << 16 | (e & 255u) << 24;
            }
            for (size_t i = 0; i < count; ++i) memcpy(q + (first + i) * pitch + c, dword + i, 4);
        }
    for (; c < channels; ++c)
        for (size_t i = 0; i < n; ++i) {
            const int32_t value = rounded(x[c * plane + i] * inverse);
            sum[i] += value;
            q[i * pitch + c] = static_cast<int8_t>(value);
        }
}

// The outputs of one row of sums, in whole tiles: a tile beyond `columns` may have no sums.
template <class Sum>
HC_INLINE void finish_row(const Sum* sum, size_t m, const Output& out, float* y) {
    const float row = out.row_scale ? out.row_scale[m] : 1.0f;
    for (int tile = 0; tile * kTile < out.columns; ++tile) {
        const float both = row * out.table_scale[tile];
        for (int n = tile * kTile; n < (tile + 1) * kTile; ++n)
            y[n] = static_cast<float>(sum[m * kPair + n]) * both * out.scale[n] + out.bias[n];
    }
}

template <class Sum>
void store_rows(const Sum* sum, size_t rows, const Output& out) {
    for (size_t m = 0; m < rows; ++m) {
        float row[kPair];
        finish_row(sum, m, out, row);
        if (out.columns == kPair)
            memcpy(out.y + m * out.ldy, row, sizeof row);
        else
            for (int n = 0; n < out.columns; ++n) out.y[m * out.ldy + n] = row[n];
    }
}

// y[n * ldy + m] = block[m][n] for n < columns.
struct PlainTranspose {
    static void store(const float (&block)[kColumnBlock][kPair], size_t rows, int columns, float* y, size_t ldy) {
        for (int n = 0; n < columns; ++n)
            for (size_t m = 0; m < rows; ++m) y[n * ldy + m] = block[m][n];
    }
};

template <class Transpose, class Sum>
void store_columns(const Sum* sum, size_t rows, const Output& out) {
    alignas(64) float block[kColumnBlock][kPair];
    for (size_t m = 0; m < rows; ++m) finish_row(sum, m, out, block[m]);
    Transpose::store(block, rows, out.columns, out.y, out.ldy);
}

template <class Transpose>
constexpr Rowwise loops = {largest,
                           quantize,
                           quantize_channels,
                           store_rows<int32_t>,
                           store_rows<float>,
                           store_columns<Transpose, int32_t>,
                           store_columns<Transpose, float>};

} // namespace
} // namespace hc
