// Runs an ONNX file that hashcompile made, on our kernels: run_onnx model.onnx libhashcompile_runtime.so 1 3 32 32 < input.f32 > output.f32
//
// The model has one input, of floats. Without the line that registers the library it runs as well, on ONNX Runtime's kernels.
#include <onnxruntime_c_api.h>

#include <memory>
#include <string>

#include "floats.h"

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

std::string name(OrtStatus* (*get)(const OrtSession*, size_t, OrtAllocator*, char**), const OrtSession* session, size_t index) {
    OrtAllocator* allocator = nullptr;
    check(api->GetAllocatorWithDefaultOptions(&allocator));
    char* text = nullptr;
    check(get(session, index, allocator, &text));
    std::string copy = text;
    check(api->AllocatorFree(allocator, text));
    return copy;
}

void write(OrtValue* output) {
    const auto type = made(api->ReleaseTensorTypeAndShapeInfo, api->GetTensorTypeAndShape, output);
    size_t count = 0;
    check(api->GetTensorShapeElementCount(type.get(), &count));
    void* values = nullptr;
    check(api->GetTensorMutableData(output, &values));
    write_floats(static_cast<const float*>(values), count);
}

int run(int count, char** arguments) {
    if (count < 4) throw std::runtime_error("usage: run_onnx MODEL LIBRARY SIZE... < INPUT > OUTPUT");
    const std::vector<int64_t> sizes = sizes_of(arguments + 3, arguments + count);
    std::vector<float> values = read_floats(sizes);

    api = OrtGetApiBase()->GetApi(ORT_API_VERSION);
    if (!api) throw std::runtime_error("this ONNX Runtime is older than the header");
    const auto environment = made(api->ReleaseEnv, api->CreateEnv, ORT_LOGGING_LEVEL_WARNING, "device");
    const auto options = made(api->ReleaseSessionOptions, api->CreateSessionOptions);
    check(api->RegisterCustomOpsLibrary_V2(options.get(), arguments[2]));
    const auto session = made(api->ReleaseSession, api->CreateSession, environment.get(), arguments[1], options.get());

    const auto memory = made(api->ReleaseMemoryInfo, api->CreateCpuMemoryInfo, OrtArenaAllocator, OrtMemTypeDefault);
    const auto input = made(api->ReleaseValue, api->CreateTensorWithDataAsOrtValue, memory.get(), values.data(),
                            values.size() * sizeof(float), sizes.data(), sizes.size(), ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT);
    const std::string input_name = name(api->SessionGetInputName, session.get(), 0);
    const std::string output_name = name(api->SessionGetOutputName, session.get(), 0);
    const char *inputs[] = {input_name.c_str()}, *outputs[] = {output_name.c_str()};
    const OrtValue* given[] = {input.get()};
    OrtValue* output = nullptr;
    check(api->Run(session.get(), nullptr, inputs, given, 1, outputs, 1, &output));
    const Owned<OrtValue> owned(output, api->ReleaseValue);
    write(output);
    return 0;
}

} // namespace

int main(int count, char** arguments) { return guarded(run, count, arguments); }
