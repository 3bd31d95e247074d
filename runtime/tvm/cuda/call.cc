// The packed function by which a compiled library runs its nodes on a GPU.
#include "tvm/cuda/kernels.h"
#include "tvm/library.h"

extern "C" HC_API int __tvm_ffi_hc_node(void*, const TVMFFIAny* args, int32_t count, TVMFFIAny*) {
    return hc::tvm::call_node<hc::tvm::cuda::Call>(hc::tvm::cuda::All{}, args, count);
}
