// Codebook weights as a warp reads them: 32 rows, a tile pair of T16.
//
// A lane loads 16 bytes of a line, the indices of 4 neighbouring rows, and the lanes of a warp load whole lines, one behind
// the other. What a lane holds is then what tensor cores want of it: 4 of the 32 rows, and as many k as a block has.
#pragma once

#include "cuda/block.h"
#include "cuda/table.h"

namespace hc::cuda {

// Four indices, one a byte: group `g` of a block whose lines hold `line(0)`, `line(1)` ... of one row.
template <int Bits, class Line>
__device__ __forceinline__ uint32_t four_indices(int g, Line line) {
    uint32_t found = 0;
    const auto add = [&](auto plane) {
        using P = decltype(plane);
        if constexpr (P::present) {
            constexpr uint32_t each = 0x01010101u * (static_cast<uint32_t>(P::mask) >> P::shift);
            found |= (line(P::offset(g) / kPairLine) >> P::position(g) & each) << P::shift;
        }
    };
    add(Plane<Bits, 8>{});
    add(Plane<Bits, 4>{});
    add(Plane<Bits, 2>{});
    add(Plane<Bits, 1>{});
    return found;
}

struct CodebookParams {
    const uint8_t* codes;
    const float* codebook;
    int rows, blocks; // of W; of a row
    int group_rows;   // that share a table; all rows, where there is one
    int tables, copies;
};

template <class T, int Bits>
class Codebook {
 public:
    using Type = T;
    using Params = CodebookParams;
    static constexpr int rows = 4;                                              // that a lane holds
    static constexpr int run = Layout<Bits>::period < 8 ? 8 : Layout<Bits>::period; // neighbouring k that it holds
    static constexpr int slabs = kDepth / (4 * run);                            // loaded at once, of 4 runs each

    struct Loaded {
        Words line[slabs][run / Layout<Bits>::period][Layout<Bits>::lines];
    };

    // `shared` gets the tables of the block's rows; nothing may be looked up before the threads have met.
    __device__ Codebook(const Params& params, uint8_t* shared, int block_row, int block_rows, const Lane& lane)
        : blocks_(params.blocks) {
        const auto table_of = [&](int row) { return min(row / params.group_rows, params.tables - 1); };
        const int first = table_of(block_row), tables = table_of(block_row + block_rows - 1) - first + 1;
        uint32_t* const table = reinterpret_cast<uint32_t*>(shared);
        Table<T, Bits>::fill(table, params.codebook + (int64_t{first} << Bits), tables, params.copies);
        const int row = block_row + (lane.warp * 8 + lane.group) * rows, own = table_of(row) - first;
        const int copy = static_cast<int>(threadIdx.x) % params.copies;
        table_ = {table + own * Table<T, Bits>::entries * params.copies + copy, params.copies};
        exists_ = row / kPair * kPair < params.rows;
        const int64_t pair = exists_ ? row / kPair : 0;
        first_block_ = lane.thread * (run / Layout<Bits>::period);
        lines_ = params.codes + (pair * blocks_ + first_block_) * Layout<Bits>::block_bytes + row % kPair * 4;
    }

    __device__ __forceinline__ Loaded load(int batch) const {
        Loaded loaded;
#pragma unroll
        for (int s = 0; s < slabs; ++s)
#pragma unroll
            for (int b = 0; b < run / Layout<Bits>::period; ++b) {
                const int block = (batch * slabs + s) * (4 * run / Layout<Bits>::period) + b;
                const bool exists = exists_ && first_block_ + block < blocks_;
#pragma unroll
                for (int l = 0; l < Layout<Bits>::lines; ++l)
                    loaded.line[s][b][l] =
                        exists ? load_once(lines_ + int64_t{block} * Layout<Bits>::block_bytes + l * kPairLine)
                               : Words{};
            }
        return loaded;
    }

    // Quad `i` of the lane's run in slab `s`, of its row `r`.
    __device__ __forceinline__ Quad<T> quad(const Loaded& loaded, int s, int i, int r) const {
        constexpr int groups = Layout<Bits>::groups;
        return table_(four_indices<Bits>(i % groups, [&](int l) { return loaded.line[s][i / groups][l].at[r]; }));
    }

 private:
    Table<T, Bits> table_;
    const uint8_t* lines_;
    int blocks_, first_block_;
    bool exists_;
};

} // namespace hc::cuda
