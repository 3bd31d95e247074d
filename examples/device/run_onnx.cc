// Runs an ONNX file that hashcompile made, on our kernels:
//     run_onnx model.onnx ./libhashcompile_runtime.so float32:1x3x32x32 < inputs > outputs
//
// An argument for each input, in the order of the model's, whose values stand in the same order in the input; a transformer
// may take int64:1x128 int64:1x128. Without the line that registers the library it runs as well, on ONNX Runtime's kernels.
#include <onnxruntime_c_api.h>

#include <memory>
#include <string>
#include <utility>

#include "tensors.h"

namespace {

const OrtApi* api;

template <class Of>
using Owned = std::unique_ptr<Of, void (*)(Of*)>;

void check(OrtStatus* status) {
    if (!status) return;
    const Owned<OrtStatus> owned(status, api->ReleaseStatus);
    throw std::runtime_error(api->GetErrorMessage(status));
}

// made(api->ReleaseEnv, api->CreateEnv, arguments...): what the second makes, until the first releases it.
template <class Of, class Create, class... Arguments>
Owned<Of> made(void (*release)(Of*), Create create, Arguments... arguments) {
    Of* object = nullptr;
    check(create(arguments..., &object));
    return {object, release};
}

// Of a session's inputs or outputs, in their order.
class Names {
  public:
    Names(OrtStatus* (*count)(const OrtSession*, size_t*),
          OrtStatus* (*get)(const OrtSession*, size_t, OrtAllocator*, char**), const OrtSession* session) {
        OrtAllocator* allocator = nullptr;
        check(api->GetAllocatorWithDefaultOptions(&allocator));
        size_t all = 0;
        check(count(session, &all));
        for (size_t i = 0; i < all; ++i) {
            char* text = nullptr;
            check(get(session, i, allocator, &text));
            texts_.emplace_back(text);
            check(api->AllocatorFree(allocator, text));
        }
        for (const std::string& text : texts_) pointers_.push_back(text.c_str());
    }
    size_t size() const { return pointers_.size(); }
    const char* const* data() const { return pointers_.data(); }

  private:
    std::vector<std::string> texts_;
    std::vector<const char*> pointers_;
};

const std::pair<std::string, ONNXTensorElementDataType> kTypes[] = {
    {"float32", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT},
    {"int64", ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64},
    {"int32", ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32},
    {"bool", ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL},
};

ONNXTensorElementDataType onnx_type(const std::string& name) {
    for (const auto& [known, type] : kTypes)
        if (known == name) return type;
    return ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
}

std::string name_of(ONNXTensorElementDataType type) {
    for (const auto& [name, known] : kTypes)
        if (known == type) return name;
    throw std::runtime_error("an output has a type that is not written here, ONNX's number " + std::to_string(type));
}

using Value = Owned<OrtValue>;

// The tensor borrows the values.
Value value_of(Tensor& tensor, const OrtMemoryInfo* memory) {
    return made(api->ReleaseValue, api->CreateTensorWithDataAsOrtValue, memory, tensor.values.data(), tensor.values.size(),
                tensor.sizes.data(), tensor.sizes.size(), onnx_type(tensor.type));
}

void write(OrtValue* output) {
    const auto told = made(api->ReleaseTensorTypeAndShapeInfo, api->GetTensorTypeAndShape, output);
    ONNXTensorElementDataType type;
    check(api->GetTensorElementType(told.get(), &type));
    size_t dims = 0;
    check(api->GetDimensionsCount(told.get(), &dims));
    std::vector<int64_t> sizes(dims);
    check(api->GetDimensions(told.get(), sizes.data(), dims));
    void* values = nullptr;
    check(api->GetTensorMutableData(output, &values));
    write_tensor(name_of(type), sizes, values);
}

int run(int count, char** arguments) {
    if (count < 4) throw std::runtime_error("usage: run_onnx MODEL LIBRARY TYPE:SIZExSIZE... < INPUTS > OUTPUTS");
    std::vector<Tensor> tensors;
    for (int i = 3; i < count; ++i) tensors.push_back(read_tensor(arguments[i]));
    read_end();

    api = OrtGetApiBase()->GetApi(ORT_API_VERSION);
    if (!api) throw std::runtime_error("this ONNX Runtime is older than the header");
    const auto environment = made(api->ReleaseEnv, api->CreateEnv, ORT_LOGGING_LEVEL_WARNING, "device");
    const auto options = made(api->ReleaseSessionOptions, api->CreateSessionOptions);
    check(api->RegisterCustomOpsLibrary_V2(options.get(), arguments[2]));
    const auto session = made(api->ReleaseSession, api->CreateSession, environment.get(), arguments[1], options.get());

    const Names inputs(api->SessionGetInputCount, api->SessionGetInputName, session.get());
    const Names outputs(api->SessionGetOutputCount, api->SessionGetOutputName, session.get());
    if (inputs.size() != tensors.size())
        throw std::runtime_error("the model has another number of inputs: " + std::to_string(inputs.size()));
    const auto memory = made(api->ReleaseMemoryInfo, api->CreateCpuMemoryInfo, OrtArenaAllocator, OrtMemTypeDefault);
    std::vector<Value> values;
    std::vector<const OrtValue*> given;
    for (Tensor& tensor : tensors) {
        values.push_back(value_of(tensor, memory.get()));
        given.push_back(values.back().get());
    }
    std::vector<OrtValue*> got(outputs.size());
    check(api->Run(session.get(), nullptr, inputs.data(), given.data(), given.size(), outputs.data(), got.size(), got.data()));
    for (OrtValue* output : got) values.emplace_back(output, api->ReleaseValue);
    for (OrtValue* output : got) write(output);
    return 0;
}

} // namespace

int main(int count, char** arguments) { return guarded(run, count, arguments); }
