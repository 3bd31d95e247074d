// The kernel table: every row of every room's kernels.inc, and the choice among them.
#pragma once

#include "attention/kernel.h"
#include "attention_i8/kernel.h"
#include "codebook_bf16/kernel.h"
#include "codebook_f32/kernel.h"
#include "codebook_i8/kernel.h"
#include "depthwise/kernel.h"
#include "depthwise_f32/kernel.h"
#include "hashcompile.h"
#include "hashed_f32/kernel.h"
#include "int8/kernel.h"
#include "norm/kernel.h"
#include "rowwise/kernel.h"
#include "softmax/kernel.h"
#include "wide/kernel.h"

namespace hc {

// What one weight runs on.
struct Kernels {
    CodebookF32 codebook_f32;
    CodebookI8 codebook_i8;
    CodebookBf16 codebook_bf16; // null where the fp32 kernels are faster
    PanelF32 panel_f32;
    Int8 int8;
    Depthwise depthwise;
    DepthwiseF32 depthwise_f32;
    Rowwise rowwise;
    double rate_few[3], rate_many[3]; // multiply-adds per nanosecond, by HC_FLOAT, HC_INT8 and HC_BF16
};

// The best rows for `bits`-bit indices, none above `cap`, all runnable. bits 0: for no indices.
Kernels select(int bits, hc_isa cap);

// What an attention runs on.
struct AttentionKernels {
    Attention f32;
    AttentionI8 i8;
    Int8 int8;
    double rate; // of int8, multiply-adds per nanosecond
};

AttentionKernels select_attention(hc_isa cap);

Norm select_norm(hc_isa cap);

Softmax select_softmax(hc_isa cap);

HashedF32 select_hashed(hc_isa cap);

Wide select_wide(hc_isa cap);

} // namespace hc
