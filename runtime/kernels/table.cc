#include "table.h"

#include <stdio.h>

#include "isa.h"

namespace hc {

// Every row declares its kernel: an array over bits, or one.
#define HC_KERNEL(room, isa, ...) extern const CodebookF32 room##_##isa[8];
#define HC_PANEL(room, isa, id) extern const PanelF32 room##_##isa;
#include "codebook_f32/kernels.inc"
#undef HC_KERNEL
#undef HC_PANEL
#define HC_KERNEL(room, isa, ...) extern const CodebookBf16 room##_##isa[8];
#include "codebook_bf16/kernels.inc"
#undef HC_KERNEL
#define HC_KERNEL(room, isa, ...) extern const CodebookI8 room##_##isa[8];
#include "codebook_i8/kernels.inc"
#undef HC_KERNEL
#define HC_KERNEL(room, isa, ...) extern const Int8 room##_##isa;
#include "int8/kernels.inc"
#undef HC_KERNEL
#define HC_KERNEL(room, isa, id) extern const Depthwise room##_##isa;
#include "depthwise/kernels.inc"
#undef HC_KERNEL
#define HC_KERNEL(room, isa, id) extern const DepthwiseF32 room##_##isa;
#include "depthwise_f32/kernels.inc"
#undef HC_KERNEL
#define HC_KERNEL(room, isa, id) extern const Rowwise room##_##isa;
#include "rowwise/kernels.inc"
#undef HC_KERNEL
#define HC_KERNEL(room, isa, id) extern const Attention room##_##isa;
#include "attention/kernels.inc"
#undef HC_KERNEL
#define HC_KERNEL(room, isa, id) extern const AttentionI8 room##_##isa;
#include "attention_i8/kernels.inc"
#undef HC_KERNEL
#define HC_KERNEL(room, isa, id) extern const Norm room##_##isa;
#include "norm/kernels.inc"
#undef HC_KERNEL
#define HC_KERNEL(room, isa, id) extern const Softmax room##_##isa;
#include "softmax/kernels.inc"
#undef HC_KERNEL
#define HC_KERNEL(room, isa, id) extern const HashedF32 room##_##isa;
#include "hashed_f32/kernels.inc"
#undef HC_KERNEL
#define HC_KERNEL(room, isa, id) extern const Wide room##_##isa;
#include "wide/kernels.inc"
#undef HC_KERNEL

namespace {

template <class Kernel>
struct Row {
    const char* room;
    hc_isa isa;
    const Kernel* kernel; // by bits - 1 in the codebook rooms
    double few, many;
};

#define HC_KERNEL(room, isa, id, few, many) {#room, id, room##_##isa, few, many},
#define HC_PANEL(room, isa, id)
constexpr Row<CodebookF32> kCodebookF32[] = {
#include "codebook_f32/kernels.inc"
};
#undef HC_PANEL
constexpr Row<CodebookBf16> kCodebookBf16[] = {
#include "codebook_bf16/kernels.inc"
};
constexpr Row<CodebookI8> kCodebookI8[] = {
#include "codebook_i8/kernels.inc"
};
#undef HC_KERNEL

#define HC_KERNEL(room, isa, ...)
#define HC_PANEL(room, isa, id) {#room, id, &room##_##isa, 0, 0},
constexpr Row<PanelF32> kPanelF32[] = {
#include "codebook_f32/kernels.inc"
};
#undef HC_KERNEL
#undef HC_PANEL

#define HC_KERNEL(room, isa, id, few, many) {#room, id, &room##_##isa, few, many},
constexpr Row<Int8> kInt8[] = {
#include "int8/kernels.inc"
};
#undef HC_KERNEL

#define HC_KERNEL(room, isa, id) {#room, id, &room##_##isa, 0, 0},
constexpr Row<Depthwise> kDepthwise[] = {
#include "depthwise/kernels.inc"
};
constexpr Row<DepthwiseF32> kDepthwiseF32[] = {
#include "depthwise_f32/kernels.inc"
};
constexpr Row<Rowwise> kRowwise[] = {
#include "rowwise/kernels.inc"
};
constexpr Row<Attention> kAttention[] = {
#include "attention/kernels.inc"
};
constexpr Row<AttentionI8> kAttentionI8[] = {
#include "attention_i8/kernels.inc"
};
constexpr Row<Norm> kNorm[] = {
#include "norm/kernels.inc"
};
constexpr Row<Softmax> kSoftmax[] = {
#include "softmax/kernels.inc"
};
constexpr Row<HashedF32> kHashedF32[] = {
#include "hashed_f32/kernels.inc"
};
constexpr Row<Wide> kWide[] = {
#include "wide/kernels.inc"
};
#undef HC_KERNEL

// Rows of a room stand in rising order of speed; the first is scalar and always runs.
template <class Kernel, size_t N>
const Row<Kernel>& best(const Row<Kernel> (&rows)[N], hc_isa cap) {
    size_t chosen = 0;
    for (size_t i = 1; i < N; ++i)
        if (allows(cap, rows[i].isa) && runnable(rows[i].isa)) chosen = i;
    return rows[chosen];
}

// Numbers the rows of a room from `first`, once for each index width; true if `i` was among them.
template <class Kernel, size_t N>
bool describe(const Row<Kernel> (&rows)[N], int widths, size_t i, size_t& first, hc_kernel& out) {
    const size_t at = i - first;
    first += N * widths;
    if (at >= N * widths) return false;
    const Row<Kernel>& row = rows[at / widths];
    out.isa = hc_isa_name(row.isa);
    out.isa_id = row.isa;
    out.bits = widths == 1 ? 0 : static_cast<int32_t>(at % widths) + 1;
    out.runnable = runnable(row.isa);
    const hc_isa cap = cap_of_environment();
    out.selected = cap != HC_ISA_END && &best(rows, cap) == &row;
    if (out.bits)
        snprintf(out.name, sizeof out.name, "%s_u%d_%s", row.room, out.bits, out.isa);
    else
        snprintf(out.name, sizeof out.name, "%s_%s", row.room, out.isa);
    return true;
}

} // namespace

Kernels select(int bits, hc_isa cap) {
    const Row<CodebookF32>& f32 = best(kCodebookF32, cap);
    const Row<CodebookI8>& i8 = best(kCodebookI8, cap);
    const Row<CodebookBf16>& bf16 = best(kCodebookBf16, cap);
    const bool in_fp32 = bf16.isa == HC_ISA_SCALAR && f32.isa != HC_ISA_SCALAR;
    return {bits ? f32.kernel[bits - 1] : CodebookF32{},
            bits ? i8.kernel[bits - 1] : CodebookI8{},
            in_fp32 || !bits ? nullptr : bf16.kernel[bits - 1],
            *best(kPanelF32, cap).kernel,
            *best(kInt8, cap).kernel,
            *best(kDepthwise, cap).kernel,
            *best(kDepthwiseF32, cap).kernel,
            *best(kRowwise, cap).kernel,
            {f32.few, i8.few, in_fp32 ? f32.few : bf16.few},
            {f32.many, i8.many, in_fp32 ? f32.many : bf16.many}};
}

AttentionKernels select_attention(hc_isa cap) {
    const Row<Int8>& int8 = best(kInt8, cap);
    return {*best(kAttention, cap).kernel, *best(kAttentionI8, cap).kernel, *int8.kernel, int8.many};
}

Norm select_norm(hc_isa cap) { return *best(kNorm, cap).kernel; }

Softmax select_softmax(hc_isa cap) { return *best(kSoftmax, cap).kernel; }

HashedF32 select_hashed(hc_isa cap) { return *best(kHashedF32, cap).kernel; }

Wide select_wide(hc_isa cap) { return *best(kWide, cap).kernel; }

} // namespace hc

extern "C" hc_code hc_kernel_get(size_t i, hc_kernel* out) {
    if (!out) return HC_INVALID_ARGUMENT;
    size_t first = 0;
    const bool found = hc::describe(hc::kCodebookF32, 8, i, first, *out) ||
                       hc::describe(hc::kCodebookI8, 8, i, first, *out) ||
                       hc::describe(hc::kCodebookBf16, 8, i, first, *out) ||
                       hc::describe(hc::kPanelF32, 1, i, first, *out) || hc::describe(hc::kInt8, 1, i, first, *out) ||
                       hc::describe(hc::kDepthwise, 1, i, first, *out) ||
                       hc::describe(hc::kDepthwiseF32, 1, i, first, *out) ||
                       hc::describe(hc::kRowwise, 1, i, first, *out) ||
                       hc::describe(hc::kAttention, 1, i, first, *out) ||
                       hc::describe(hc::kAttentionI8, 1, i, first, *out) ||
                       hc::describe(hc::kNorm, 1, i, first, *out) || hc::describe(hc::kSoftmax, 1, i, first, *out) ||
                       hc::describe(hc::kWide, 1, i, first, *out) ||
                       hc::describe(hc::kHashedF32, 1, i, first, *out);
    return found ? HC_OK : HC_OUT_OF_RANGE;
}
