// The packed function by which a compiled library runs its nodes on a CPU.
#include "nodes/all.h"
#include "tvm/host.h"
#include "tvm/library.h"

namespace hc::tvm {
namespace {

Library<Call>& library() {
    static Library<Call> library{nodes::All{}};
    return library;
}

} // namespace
} // namespace hc::tvm

extern "C" HC_API int __tvm_ffi_hc_node(void*, const TVMFFIAny* args, int32_t count, TVMFFIAny*) {
    return hc::tvm::call_node(hc::tvm::library, args, count);
}
