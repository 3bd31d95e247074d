// A wide output layer of which few rows are computed: sketches that choose them, and their products.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace hc {

// Rows (N, ceil(k * bits / 8)) of codes, and the values of every byte: bytes[256][8 / bits].
struct WideCodes {
    const uint8_t* codes;
    size_t bits; // 1, 2, 4 or 8
    const float* bytes;
    const float* scale; // (N)
};

struct Wide {
    // y[j] = start[j] + sum_k x[k] * planes[k][j], planes (k, count). Terms are added in the order of k, so that all
    // instruction sets find the same signs.
    void (*project)(const float* x, size_t k, const float* planes, const float* start, size_t count, float* y);

    // near[n] = distance[n] <= limit[n], for n < count, with the Hamming distance of the sketches of a row and of x:
    //     distance[n] = min(255, sum_b bits set in (sketches[b * pitch + n] ^ sketch[b])), b < bytes
    void (*near)(const uint8_t* sketches, size_t pitch, const uint8_t* sketch, size_t bytes, const uint8_t* limit,
                 size_t count, uint8_t* near);

    // y[n] = sum_k x[k] * weight[n][k] + bias[n] for the `count` rows n in `rows`; weight (rows, k). The same bits
    // everywhere.
    void (*products)(const float* x, size_t k, const float* weight, const float* bias, const uint32_t* rows,
                     size_t count, float* y);

    // y[n] = scale[n] * sum_k x[k] * value[n][k] + bias[n], for the same rows. The same bits everywhere.
    void (*coded_products)(const float* x, size_t k, const WideCodes& weight, const float* bias, const uint32_t* rows,
                           size_t count, float* y);
};

} // namespace hc
