// Where the activations of a product lie: row m of X is what a window sees, m-th of all windows of all images, with k
// going over its taps, channels innermost. A linear layer sees one tap of an image of 1 x 1.
#pragma once

#include <limits.h>

#include "cuda/block.h"

namespace hc::cuda {

template <class T>
struct Source {
    const T* x;
    int64_t steps[4]; // of batch, channel, row, column
    int m, k;         // windows; numbers in one
    int channels;     // of a group
    int height, width, out_height, out_width;
    int taps_x, stride_y, stride_x, dilation_y, dilation_x, top, left;
    bool whole; // 16 bytes of neighbouring k are 16 aligned bytes in memory

    struct Place { // of a window: its image, and its first tap
        int64_t image;
        int y, x;
    };
    struct Tap {
        int64_t channel;
        int y, x;
    };

    __device__ Place place(int window) const {
        if (window >= m) return {0, INT_MIN / 2, 0}; // sees nothing
        const int pixels = out_height * out_width, image = window / pixels, pixel = window % pixels;
        return {image * steps[0], pixel / out_width * stride_y - top, pixel % out_width * stride_x - left};
    }

    __device__ Tap tap(int at, int group) const {
        const int pixel = at / channels;
        return {(int64_t{group} * channels + at % channels) * steps[1], pixel / taps_x * dilation_y,
                pixel % taps_x * dilation_x};
    }

    // Where a tap of a window lies, or NULL: then it is zero.
    __device__ __forceinline__ const T* find(const Place& window, const Tap& tap) const {
        const int row = window.y + tap.y, column = window.x + tap.x;
        const bool inside = static_cast<unsigned>(row) < static_cast<unsigned>(height) &&
                            static_cast<unsigned>(column) < static_cast<unsigned>(width);
        return inside ? x + window.image + tap.channel + row * steps[2] + column * steps[3] : nullptr;
    }
};

// Rows of a linear layer, read as they are wanted.
template <class T>
struct Rows {
    const T* x;
    int m, k;
    bool whole; // as in Source

    __device__ __forceinline__ Words chunk(int row, int first) const {
        Words words{};
        if (row >= m || first >= k) return words;
        const T* const from = x + int64_t{row} * k + first;
        if (whole) return load_cached(from);
        constexpr int count = 16 / sizeof(T);
        T each[count] = {};
#pragma unroll
        for (int i = 0; i < count; ++i)
            if (first + i < k) each[i] = from[i];
        if constexpr (sizeof(T) == 4) {
#pragma unroll
            for (int i = 0; i < 4; ++i) words.at[i] = __float_as_uint(each[i]);
        } else {
#pragma unroll
            for (int i = 0; i < 4; ++i) words.at[i] = uint32_t{each[2 * i].bits} | uint32_t{each[2 * i + 1].bits} << 16;
        }
        return words;
    }
};

} // namespace hc::cuda
