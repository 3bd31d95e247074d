// The little of TVM's C ABI that a kernel in a compiled library needs: how a packed function is called (TVM-FFI), what a
// tensor is (DLPack), and TVM's own threads. Names that the host process lacks are null.
#pragma once

#include <stddef.h>
#include <stdint.h>

extern "C" {
struct DLDevice {
    int32_t type, id;
};

struct DLDataType {
    uint8_t code, bits;
    uint16_t lanes;
};

struct DLTensor {
    void* data;
    DLDevice device;
    int32_t ndim;
    DLDataType dtype;
    int64_t* shape;
    int64_t* strides; // in elements; null: dense
    uint64_t byte_offset;
};

struct TVMFFIObject {
    uint64_t references;
    int32_t type_index;
    uint32_t padding;
    void (*deleter)(void* self, int flags);
};

struct TVMFFIAny {
    int32_t type_index;
    uint32_t padding;
    union {
        int64_t integer;
        void* pointer;
        TVMFFIObject* object;
    };
};

struct TVMParallelGroupEnv {
    void* sync_handle;
    int32_t num_task;
};

__attribute__((weak)) void TVMFFIErrorSetRaisedFromCStr(const char* kind, const char* message);
// Calls `lambda` once on each thread of the pool where `num_task` is 0.
__attribute__((weak)) int TVMBackendParallelLaunch(int (*lambda)(int task, TVMParallelGroupEnv* env, void* data),
                                                   void* data, int num_task);
// The stream in which the caller has work done on a device.
__attribute__((weak)) void* TVMFFIEnvGetStream(int32_t device_type, int32_t device_id);
}

static_assert(sizeof(DLTensor) == 48 && sizeof(TVMFFIAny) == 16 && sizeof(TVMFFIObject) == 24, "these layouts are fixed");

namespace hc::tvm {

enum TypeIndex { kInt = 1, kDLTensorPtr = 7, kTensorObject = 70 };
enum DeviceType { kCPU = 1, kCUDA = 2 };
enum TypeCode { kDLInt = 0, kDLUInt = 1, kDLFloat = 2, kDLBool = 6 };

} // namespace hc::tvm
