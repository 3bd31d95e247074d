// The kernels of HC_BITS bits.
#include "cuda/codebook.h"

#include "cuda/product.h"

namespace hc::cuda {
namespace {

// Tables that a block's rows may need, at most: groups are whole tiles.
size_t tables_of(const CodebookParams& params, size_t block_rows) {
    const size_t group = static_cast<size_t>(params.group_rows);
    return smaller(static_cast<size_t>(params.tables), (block_rows - 1) / group + 2);
}

CodebookParams params_of(const hc_cuda_codebook& w) {
    const int rows = static_cast<int>(w.rows), group = static_cast<int>(w.group_rows ? w.group_rows : w.rows);
    const int period = Layout<HC_BITS>::period;
    return {w.codes, w.codebook, rows, static_cast<int>((w.columns + period - 1) / period), group ? group : 1,
            static_cast<int>(w.codebook_len >> HC_BITS), 1};
}

} // namespace

#define HC_SYMBOL_OF(bits) hc_cuda_##bits##_bits
#define HC_SYMBOL(bits) HC_SYMBOL_OF(bits)
extern "C" const char HC_SYMBOL(HC_BITS);
const char HC_SYMBOL(HC_BITS) = 0;

template <>
void codebook_product<HC_BITS>(const hc_cuda_codebook& weight, hc_cuda_dtype dtype, const Problem& problem) {
    with_type(dtype, [&](auto type) {
        using W = Codebook<decltype(type), HC_BITS>;
        CodebookParams params = params_of(weight);
        const size_t tables = tables_of(params, kBlockRows<W>);
        const size_t one = tables * Table<decltype(type), HC_BITS>::entries * sizeof(uint32_t);
        while (params.copies < kMostCopies && 2 * one * static_cast<size_t>(params.copies) <= kTableBytes)
            params.copies *= 2;
        run<W>(params, one * static_cast<size_t>(params.copies), problem);
    });
}

template <>
void codebook_lookup<HC_BITS>(const hc_cuda_codebook& weight, hc_cuda_dtype dtype, const Lookup& lookup) {
    const CodebookParams params = params_of(weight);
    if (!lookup.count || !params.blocks) return;
    with_type(dtype, [&](auto type) {
        using T = decltype(type);
        launch(codebook_embedding<T, HC_BITS>, grid_of(lookup, static_cast<size_t>(params.blocks)), 256, 0,
               lookup.stream, params, ids_of<T>(lookup));
    });
}

} // namespace hc::cuda
