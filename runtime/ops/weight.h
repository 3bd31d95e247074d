// A weight: borrowed codes, and the tables prepared for the kernels.
#pragma once

#include <vector>

#include "hashcompile.h"
#include "table.h"

namespace hc {

constexpr size_t kSumColumns = 65536; // 127 * 255 * 65536 < 2^31: an int32 sum of that many products is exact

// The instruction set that a caller's choice and HC_ISA allow.
hc_isa cap_of(hc_isa wanted);

} // namespace hc

struct hc_weight {
    explicit hc_weight(const hc_weight_desc& desc);

    int bits;
    bool int8;
    bool direct; // 8-bit codes that are the 8-bit weights themselves: no look-up
    bool dense;  // 32-bit codes, which are the weights themselves: a pair's are a panel, (k, 32) fp32
    size_t rows, columns;
    size_t period, block_bytes, blocks, pairs;             // of the codes
    size_t groups;                                         // of channels
    size_t group_rows, f32_stride, bf16_stride, i8_stride; // entries from table to table
    const uint8_t* codes;
    std::vector<float> f32_tables;     // centroids, repeated up to kTableF32
    std::vector<uint16_t> bf16_tables; // the same in bf16, repeated up to kTableBf16; empty unless a kernel wants them
    std::vector<int8_t> i8_tables;     // centroids / i8_scale, repeated up to kTableI8; empty unless int8
    std::vector<float> i8_scale;       // of each table
    std::vector<int32_t> row_sums;     // of 8-bit centroids over K, padded to whole pairs; empty unless int8
    std::vector<float> scale, bias;    // padded with zeros to whole pairs
    std::vector<int8_t> taps;          // of a depthwise convolution: decoded, as DepthwiseCall has them; int8 only
    std::vector<float> f32_taps;       // the same as DepthwiseF32Call has them, unless int8 or dense
    hc::Kernels kernels;

    size_t pair_bytes() const { return blocks * block_bytes; }
    const uint8_t* pair_codes(size_t pair) const { return codes + pair * pair_bytes(); }
    const float* panel(size_t pair) const { return reinterpret_cast<const float*>(pair_codes(pair)); } // of a dense weight
    bool depthwise() const { return groups > 1 && groups == rows; }
    size_t table_of(size_t row) const { return group_rows ? row / group_rows : 0; }
    size_t table_of_tile(size_t pair, int tile) const;
    const float* f32_table(size_t pair, int tile) const { return &f32_tables[table_of_tile(pair, tile) * f32_stride]; }
    const uint16_t* bf16_table(size_t pair, int tile) const {
        return &bf16_tables[table_of_tile(pair, tile) * bf16_stride];
    }
    const int8_t* i8_table(size_t pair, int tile) const { return &i8_tables[table_of_tile(pair, tile) * i8_stride]; }

    int columns_of(size_t pair) const; // rows of W that the pair has: columns of the output

    // How the sums of a pair become values: all but row_scale.
    hc::Scaling scaling_of(size_t pair, int32_t zero) const;

    // The call that multiplies a pair: all but the activations and the sums.
    hc::CodebookI8Call i8_call(size_t pair) const;

    // Estimated time of `m` rows times one pair.
    double pair_ns(size_t m) const;
};
