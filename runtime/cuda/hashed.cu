// The kernels of hashed weights.
#include "cuda/hashed.h"

#include "cuda/product.h"

namespace hc::cuda {
namespace {

template <class T>
HashedParams<T> params_of(const hc_cuda_hashed& w) {
    return {static_cast<const T*>(w.values), static_cast<uint32_t>(w.values_len / static_cast<size_t>(w.side * w.side)),
            w.seed};
}

} // namespace

extern "C" const char hc_cuda_hashes;
const char hc_cuda_hashes = 0;

void hashed_product(const hc_cuda_hashed& weight, hc_cuda_dtype dtype, const Problem& problem) {
    with_type(dtype, [&](auto type) {
        using T = decltype(type);
        run<Hashed<T>>(params_of<T>(weight), 0, problem);
    });
}

void hashed_lookup(const hc_cuda_hashed& weight, hc_cuda_dtype dtype, const Lookup& lookup) {
    if (!lookup.count || !lookup.columns) return;
    with_type(dtype, [&](auto type) {
        using T = decltype(type);
        const auto kernel = weight.side == 1 ? hashed_embedding<T, 1> : hashed_embedding<T, kTile>;
        launch(kernel, grid_of(lookup, ceil_div(static_cast<size_t>(lookup.columns), 4)), 256, 0, lookup.stream,
               params_of<T>(weight), ids_of<T>(lookup));
    });
}

} // namespace hc::cuda
