// The packed function by which a compiled library runs its nodes on a CPU.
#include "nodes/all.h"
#include "tvm/host.h"
#include "tvm/library.h"

extern "C" HC_API int __tvm_ffi_hc_node(void*, const TVMFFIAny* args, int32_t count, TVMFFIAny*) {
    return hc::tvm::call_node<hc::tvm::Call>(hc::nodes::All{}, args, count);
}
