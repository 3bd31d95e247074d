// The few slots of ONNX Runtime's C API that a custom op needs. The API is a table of functions that only ever grows;
// a slot never moves (version 17, of ONNX Runtime 1.17, has all of these).
#pragma once

#include <stddef.h>
#include <stdint.h>

extern "C" {
struct OrtStatus;
struct OrtValue;
struct OrtSessionOptions;
struct OrtCustomOpDomain;
struct OrtKernelInfo;
struct OrtKernelContext;
struct OrtTensorTypeAndShapeInfo;
struct OrtShapeInferContext;

struct OrtApi {
    void* slot[275];
};

struct OrtApiBase {
    const OrtApi* (*GetApi)(uint32_t version);
    const char* (*GetVersionString)();
};

struct OrtCustomOp {
    uint32_t version;
    void* (*CreateKernel)(const OrtCustomOp*, const OrtApi*, const OrtKernelInfo*);
    const char* (*GetName)(const OrtCustomOp*);
    const char* (*GetExecutionProviderType)(const OrtCustomOp*);
    int (*GetInputType)(const OrtCustomOp*, size_t);
    size_t (*GetInputTypeCount)(const OrtCustomOp*);
    int (*GetOutputType)(const OrtCustomOp*, size_t);
    size_t (*GetOutputTypeCount)(const OrtCustomOp*);
    void (*KernelCompute)(void*, OrtKernelContext*);
    void (*KernelDestroy)(void*);
    int (*GetInputCharacteristic)(const OrtCustomOp*, size_t);
    int (*GetOutputCharacteristic)(const OrtCustomOp*, size_t);
    int (*GetInputMemoryType)(const OrtCustomOp*, size_t);
    int (*GetVariadicInputMinArity)(const OrtCustomOp*);
    int (*GetVariadicInputHomogeneity)(const OrtCustomOp*);
    int (*GetVariadicOutputMinArity)(const OrtCustomOp*);
    int (*GetVariadicOutputHomogeneity)(const OrtCustomOp*);
    OrtStatus* (*CreateKernelV2)(const OrtCustomOp*, const OrtApi*, const OrtKernelInfo*, void**);
    OrtStatus* (*KernelComputeV2)(void*, OrtKernelContext*);
    OrtStatus* (*InferOutputShape)(const OrtCustomOp*, OrtShapeInferContext*);
    int (*GetStartVersion)(const OrtCustomOp*);
    int (*GetEndVersion)(const OrtCustomOp*);
    size_t (*GetMayInplace)(int**, int**);
    void (*ReleaseMayInplace)(int*, int*);
    size_t (*GetAliasMap)(int**, int**);
    void (*ReleaseAliasMap)(int*, int*);
};
}

static_assert(sizeof(void*) != 8 || sizeof(OrtCustomOp) == 208, "the layout of OrtCustomOp is fixed");

namespace hc::ort {

constexpr uint32_t kApiVersion = 17;

enum StatusCode { kFail = 1, kInvalidArgument = 2 };

// A slot and its signature: api(kGetInput, context, 0, &value).
template <int Number, class Signature>
struct Slot;

template <int Number, class Result, class... Args>
struct Slot<Number, Result(Args...)> {
    Result operator()(const OrtApi* api, Args... args) const {
        return reinterpret_cast<Result (*)(Args...)>(api->slot[Number])(args...);
    }
};

using ParallelTask = void (*)(void*, size_t);

constexpr Slot<0, OrtStatus*(int, const char*)> kCreateStatus;
constexpr Slot<2, const char*(const OrtStatus*)> kGetErrorMessage;
constexpr Slot<26, OrtStatus*(const char*, OrtCustomOpDomain**)> kCreateCustomOpDomain;
constexpr Slot<27, OrtStatus*(OrtCustomOpDomain*, const OrtCustomOp*)> kDomainAdd;
constexpr Slot<28, OrtStatus*(OrtSessionOptions*, OrtCustomOpDomain*)> kAddDomain;
constexpr Slot<51, OrtStatus*(OrtValue*, void**)> kGetTensorData;
constexpr Slot<60, OrtStatus*(const OrtTensorTypeAndShapeInfo*, int*)> kGetElementType;
constexpr Slot<61, OrtStatus*(const OrtTensorTypeAndShapeInfo*, size_t*)> kGetDimensionsCount;
constexpr Slot<62, OrtStatus*(const OrtTensorTypeAndShapeInfo*, int64_t*, size_t)> kGetDimensions;
constexpr Slot<65, OrtStatus*(const OrtValue*, OrtTensorTypeAndShapeInfo**)> kGetTypeAndShape;
constexpr Slot<85, OrtStatus*(const OrtKernelInfo*, const char*, float*)> kGetFloatAttribute;
constexpr Slot<86, OrtStatus*(const OrtKernelInfo*, const char*, int64_t*)> kGetAttribute;
constexpr Slot<87, OrtStatus*(const OrtKernelInfo*, const char*, char*, size_t*)> kGetStringAttribute;
constexpr Slot<90, OrtStatus*(const OrtKernelContext*, size_t, const OrtValue**)> kGetInput;
constexpr Slot<91, OrtStatus*(OrtKernelContext*, size_t, const int64_t*, size_t, OrtValue**)> kGetOutput;
constexpr Slot<93, void(OrtStatus*)> kReleaseStatus;
constexpr Slot<99, void(OrtTensorTypeAndShapeInfo*)> kReleaseTypeAndShape;
constexpr Slot<162, OrtStatus*(const OrtKernelInfo*, const char*, float*, size_t*)> kGetFloatAttributeArray;
constexpr Slot<163, OrtStatus*(const OrtKernelInfo*, const char*, int64_t*, size_t*)> kGetAttributeArray;
constexpr Slot<230, OrtStatus*(const OrtKernelInfo*, size_t*)> kGetInputCount;
constexpr Slot<232, OrtStatus*(const OrtKernelInfo*, size_t, char*, size_t*)> kGetInputName;
constexpr Slot<244, OrtStatus*(const OrtKernelInfo*, char*, size_t*)> kGetNodeName;
constexpr Slot<249, OrtStatus*(const OrtKernelInfo*, size_t, int*, const OrtValue**)> kGetConstantInput;
constexpr Slot<274, OrtStatus*(const OrtKernelContext*, ParallelTask, size_t, size_t, void*)> kParallelFor;

} // namespace hc::ort
