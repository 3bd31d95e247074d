// The packed function by which a compiled library runs its nodes on a GPU.
#include "tvm/cuda/kernels.h"
#include "tvm/library.h"

namespace hc::tvm::cuda {
namespace {

Library<Call>& library() {
    static Library<Call> library{All{}};
    return library;
}

} // namespace
} // namespace hc::tvm::cuda

extern "C" HC_API int __tvm_ffi_hc_node(void*, const TVMFFIAny* args, int32_t count, TVMFFIAny*) {
    return hc::tvm::call_node(hc::tvm::cuda::library, args, count);
}
