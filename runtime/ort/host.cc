#include "ort/host.h"

namespace hc::ort {
namespace {

Tensor tensor_of(const OrtApi* api, const OrtValue* value) {
    Tensor tensor;
    OrtTensorTypeAndShapeInfo* info = nullptr;
    check(api, kGetTypeAndShape(api, value, &info));
    struct Release {
        const OrtApi* api;
        OrtTensorTypeAndShapeInfo* info;
        ~Release() { kReleaseTypeAndShape(api, info); }
    } release{api, info};
    size_t rank = 0;
    check(api, kGetDimensionsCount(api, info, &rank));
    tensor.dims.resize(rank);
    check(api, kGetDimensions(api, info, tensor.dims.data(), rank));
    check(api, kGetElementType(api, info, &tensor.type));
    void* data = nullptr;
    check(api, kGetTensorData(api, const_cast<OrtValue*>(value), &data));
    static const char nothing = 0; // an empty tensor may have no memory, and is not absent
    tensor.data = data ? data : &nothing;
    return tensor;
}

// Did the call succeed? A failure is forgotten.
bool succeeded(const OrtApi* api, OrtStatus* status) {
    if (status) kReleaseStatus(api, status);
    return !status;
}

template <class T, class Get>
std::vector<T> values_of(const OrtApi* api, const OrtKernelInfo* info, const char* name, const Get& get) {
    size_t count = 0;
    check(api, get(api, info, name, nullptr, &count));
    std::vector<T> values(count);
    check(api, get(api, info, name, values.data(), &count));
    return values;
}

} // namespace

void check(const OrtApi* api, OrtStatus* status) {
    if (!status) return;
    Failure failure{HC_INTERNAL, {}};
    snprintf(failure.text, sizeof failure.text, "%s", kGetErrorMessage(api, status));
    kReleaseStatus(api, status);
    throw failure;
}

std::string Node::name() const {
    size_t size = 0;
    check(api_, kGetNodeName(api_, info_, nullptr, &size));
    std::string name(size, '\0');
    check(api_, kGetNodeName(api_, info_, name.data(), &size));
    name.resize(size ? size - 1 : 0); // the terminator
    return name;
}

int64_t Node::attribute(const char* name) const {
    int64_t value = 0;
    check(api_, kGetAttribute(api_, info_, name, &value));
    return value;
}

float Node::float_attribute(const char* name) const {
    float value = 0;
    check(api_, kGetFloatAttribute(api_, info_, name, &value));
    return value;
}

std::vector<int64_t> Node::attributes(const char* name) const {
    return values_of<int64_t>(api_, info_, name, kGetAttributeArray);
}

std::vector<float> Node::float_attributes(const char* name) const {
    return values_of<float>(api_, info_, name, kGetFloatAttributeArray);
}

int64_t Node::attribute_or(const char* name, int64_t otherwise) const {
    int64_t value = 0;
    return succeeded(api_, kGetAttribute(api_, info_, name, &value)) ? value : otherwise;
}

float Node::attribute_or(const char* name, float otherwise) const {
    float value = 0;
    return succeeded(api_, kGetFloatAttribute(api_, info_, name, &value)) ? value : otherwise;
}

std::string Node::attribute_or(const char* name, const char* otherwise) const {
    size_t size = 0;
    if (!succeeded(api_, kGetStringAttribute(api_, info_, name, nullptr, &size))) return otherwise;
    std::string value(size, '\0');
    check(api_, kGetStringAttribute(api_, info_, name, value.data(), &size));
    value.resize(size ? size - 1 : 0); // the terminator
    return value;
}

size_t Node::input_count() const {
    size_t count = 0;
    check(api_, kGetInputCount(api_, info_, &count));
    return count;
}

bool Node::has_input(size_t index) const {
    size_t name_size = 1; // of the terminator alone: an input left out before others
    if (index < input_count()) check(api_, kGetInputName(api_, info_, index, nullptr, &name_size));
    return name_size > 1;
}

Tensor Node::constant(size_t index, const char* name, ElementType type, Characteristic kind) const {
    if (kind == kOptional && !has_input(index)) return {};
    int constant = 0;
    const OrtValue* value = nullptr;
    check(api_, kGetConstantInput(api_, info_, index, &constant, &value));
    if (!constant || !value) fail(HC_INVALID_ARGUMENT, "input %zu (%s) must be a constant initializer", index, name);
    const Tensor tensor = tensor_of(api_, value);
    if (tensor.type != type)
        fail(HC_INVALID_ARGUMENT, "input %zu (%s) has element type %d; wanted %d", index, name, tensor.type, type);
    return tensor;
}

Tensor Call::input(size_t index, ElementType type) const {
    const OrtValue* value = nullptr;
    check(api_, kGetInput(api_, context_, index, &value));
    if (!value) fail(HC_INVALID_ARGUMENT, "input %zu is missing", index);
    const Tensor tensor = tensor_of(api_, value);
    if (type != kAny && tensor.type != type)
        fail(HC_INVALID_ARGUMENT, "input %zu has element type %d; wanted %d", index, tensor.type, type);
    return tensor;
}

void* Call::output(const std::vector<int64_t>& dims, size_t index) const {
    OrtValue* value = nullptr;
    check(api_, kGetOutput(api_, context_, index, dims.data(), dims.size(), &value));
    void* data = nullptr;
    check(api_, kGetTensorData(api_, value, &data));
    return data;
}

hc_exec Call::exec() {
    return {this, [](void* host, void (*task)(void*, size_t), void* arg, size_t count) {
                const Call& call = *static_cast<Call*>(host);
                // 0 batches: tasks are claimed one by one, so a late thread costs one task.
                OrtStatus* status = kParallelFor(call.api_, call.context_, task, count, 0, arg);
                if (status) kReleaseStatus(call.api_, status); // the tasks that did not run are missed by who waits
            }};
}

} // namespace hc::ort
