// One kernel of each kind, at its largest: what the compiler makes of them is looked at.
#include "cuda/product.h"

namespace hc::cuda {

extern const void* const kernels[] = {
    reinterpret_cast<const void*>(gemm<Codebook<Half, 7>, 64>),
    reinterpret_cast<const void*>(gemm<Codebook<Bf16, 4>, 64>),
    reinterpret_cast<const void*>(gemm<Codebook<float, 4>, 32>),
    reinterpret_cast<const void*>(gemv<Codebook<Half, 4>, 4>),
    reinterpret_cast<const void*>(gemm<Hashed<Bf16>, 32>),
    reinterpret_cast<const void*>(codebook_embedding<Half, 7>),
};

} // namespace hc::cuda
