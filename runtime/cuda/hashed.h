// Hashed tiles as a warp reads them, straight from the pool.
//
// A tile lies column after column. A lane loads 16 bytes of each of 8 columns, 4 or 8 neighbouring rows by the type; two
// columns are then joined to the pairs along K that tensor cores want. A place is hashed once for 64 weights of a lane: no
// table of places is read.
#pragma once

#include "cuda/block.h"
#include "cuda/hash.h"
#include "cuda/quad.h"

namespace hc::cuda {

template <class T>
struct HashedParams {
    const T* values;
    uint32_t buckets, seed;
};

template <class T>
class Hashed {
 public:
    using Type = T;
    using Params = HashedParams<T>;
    static constexpr int rows = 16 / sizeof(T);
    static constexpr int run = 8;
    static constexpr int slabs = 1;

    struct Loaded {
        Words column[run];
        uint32_t sign; // what turns the sign of the numbers in a word
    };

    __device__ Hashed(const Params& params, uint8_t*, int block_row, int, const Lane& lane)
        : params_(params), half_(lane.thread / 2) {
        const int row = block_row + (lane.warp * 8 + lane.group) * rows;
        row_hash_ = row_hash(row / kTile, params.seed);
        within_ = lane.thread % 2 * run * kTile + row % kTile;
    }

    __device__ __forceinline__ Loaded load(int batch) const {
        const Bucket bucket = bucket_of(row_hash_, 2 * batch + half_, params_.seed, params_.buckets);
        const T* const from = params_.values + int64_t{bucket.index} * kTile * kTile + within_;
        Loaded loaded;
        loaded.sign = !bucket.negative ? 0 : sizeof(T) == 2 ? 0x80008000u : 0x80000000u;
#pragma unroll
        for (int c = 0; c < run; ++c) loaded.column[c] = load_cached(from + c * kTile);
        return loaded;
    }

    __device__ __forceinline__ Quad<T> quad(const Loaded& loaded, int, int i, int r) const {
        const Words* const c = loaded.column + 4 * i;
        Quad<T> q;
        if constexpr (sizeof(T) == 4) {
#pragma unroll
            for (int j = 0; j < 4; ++j) q.at[j] = __uint_as_float(c[j].at[r] ^ loaded.sign);
        } else {
            const uint32_t which = r % 2 ? 0x7632 : 0x5410;
#pragma unroll
            for (int j = 0; j < 2; ++j)
                q.at[j] = __byte_perm(c[2 * j].at[r / 2], c[2 * j + 1].at[r / 2], which) ^ loaded.sign;
        }
        return q;
    }

 private:
    Params params_;
    uint32_t row_hash_;
    int half_, within_;
};

} // namespace hc::cuda
