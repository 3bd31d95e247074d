// Codebooks in shared memory.
//
// A bank of shared memory serves one lane at a time, so a table lies there several times over, copy beside copy, and
// neighbouring lanes read copies of their own: with 32 copies no two lanes ever meet. Of fp16 and bf16 values with indices
// of up to 4 bits an entry holds two, for two indices at once: half as many look-ups.
#pragma once

#include "cuda/quad.h"

namespace hc::cuda {

constexpr int kMostCopies = 32;

template <class T, int Bits>
struct Table {
    static constexpr bool paired = sizeof(T) == 2 && Bits <= 4;
    static constexpr int entries = 1 << (paired ? 2 * Bits : Bits);

    const uint32_t* entry; // of index 0, in this lane's copy
    int copies;

    // `to` (tables, entries, copies) from `codebook` (tables, 2^Bits), by all threads of the block.
    static __device__ void fill(uint32_t* to, const float* codebook, int tables, int copies) {
        for (int i = static_cast<int>(threadIdx.x); i < tables * entries * copies; i += static_cast<int>(blockDim.x)) {
            const int of = i / copies / entries, index = i / copies % entries;
            to[i] = made(codebook + (of << Bits), index);
        }
    }

    // `indices`: four, one a byte.
    __device__ __forceinline__ Quad<T> operator()(uint32_t indices) const {
        if constexpr (sizeof(T) == 4) {
            Quad<T> q;
#pragma unroll
            for (int i = 0; i < 4; ++i) q.at[i] = __uint_as_float(entry[(indices >> 8 * i & 0xFF) * copies]);
            return q;
        } else if constexpr (paired) {
            const uint32_t joined = indices | indices >> (8 - Bits); // byte 0: of indices 0 and 1, byte 2: of 2 and 3
            constexpr uint32_t mask = entries - 1;
            return {{entry[(joined & mask) * copies], entry[(joined >> 16 & mask) * copies]}};
        } else {
            uint32_t value[4];
#pragma unroll
            for (int i = 0; i < 4; ++i) value[i] = entry[(indices >> 8 * i & 0xFF) * copies];
            return {{__byte_perm(value[0], value[1], 0x5410), __byte_perm(value[2], value[3], 0x5410)}};
        }
    }

 private:
    static __device__ uint32_t made(const float* codebook, int index) {
        if constexpr (sizeof(T) == 4) {
            return __float_as_uint(codebook[index]);
        } else {
            const T low = rounded<T>(codebook[index & ((1 << Bits) - 1)]);
            return paired ? both(low, rounded<T>(codebook[index >> Bits])) : both(low, low);
        }
    }
};

} // namespace hc::cuda
