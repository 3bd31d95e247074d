// A device of kind cuda for TVM's runtime whose memory is ordinary memory.
#include <stdlib.h>
#include <string.h>
#include <tvm/ffi/function.h>
#include <tvm/ffi/reflection/registry.h>
#include <tvm/runtime/device_api.h>

namespace {

using namespace tvm;
using namespace tvm::runtime;

class EmulatedDevice final : public DeviceAPI {
   public:
    void SetDevice(Device) override {}
    void GetAttr(Device, DeviceAttrKind kind, ffi::Any* found) override {
        if (kind == kExist) *found = 1;
    }
    void* AllocDataSpace(Device, size_t bytes, size_t, DLDataType) override {
        void* memory = nullptr;
        if (posix_memalign(&memory, 256, bytes ? bytes : 1)) return nullptr;
        memset(memory, 0xFF, bytes); // NaN
        return memory;
    }
    void FreeDataSpace(Device, void* memory) override { free(memory); }
    void StreamSync(Device, TVMStreamHandle) override {}

   protected:
    void CopyDataFromTo(const void* from, size_t from_offset, void* to, size_t to_offset, size_t bytes, Device, Device,
                        DLDataType, TVMStreamHandle) override {
        memcpy(static_cast<char*>(to) + to_offset, static_cast<const char*>(from) + from_offset, bytes);
    }
};

} // namespace

TVM_FFI_STATIC_INIT_BLOCK() {
    tvm::ffi::reflection::GlobalDef().def_packed("device_api.cuda", [](tvm::ffi::PackedArgs, tvm::ffi::Any* found) {
        static EmulatedDevice device;
        *found = static_cast<void*>(static_cast<DeviceAPI*>(&device));
    });
}
