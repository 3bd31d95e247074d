// ONNX Runtime in C++ words: tensors, attributes, its thread pool; its errors become Failures.
#pragma once

#include <string>
#include <vector>

#include "ops/error.h"
#include "ort/api.h"

namespace hc::ort {

// Throws what a failed call says.
void check(const OrtApi* api, OrtStatus* status);

struct Tensor {
    const void* data = nullptr; // null: the input is absent
    std::vector<int64_t> dims;
    int type = 0; // an ElementType

    const float* floats() const { return static_cast<const float*>(data); }
    size_t count() const; // product of dims
};

// A formal input of an op.
struct Formal {
    ElementType type;
    Characteristic kind;
};

// What ONNX Runtime asks of an op; its outputs are floats.
struct Signature {
    const char* op;
    const Formal* inputs;
    size_t input_count;
    Characteristic output; // kVariadic for any number of them
};

// The node that a kernel is made for.
class Node {
   public:
    Node(const OrtApi* api, const OrtKernelInfo* info) : api_(api), info_(info) {}

    std::string name() const;
    int64_t attribute(const char* name) const;
    float float_attribute(const char* name) const;
    std::vector<int64_t> attributes(const char* name) const;
    std::vector<float> float_attributes(const char* name) const;

    // The attribute, or a default where the node has none.
    int64_t attribute_or(const char* name, int64_t otherwise) const;
    float attribute_or(const char* name, float otherwise) const;
    std::string attribute_or(const char* name, const char* otherwise) const;

    size_t input_count() const;

    // Is this input given?
    bool has_input(size_t index) const;

    // A constant input; fails unless it is an initializer of that element type. Absent: optional and not given.
    Tensor constant(size_t index, const char* name, ElementType type, Characteristic kind) const;

   private:
    const OrtApi* api_;
    const OrtKernelInfo* info_;
};

// One run of a kernel.
class Call {
   public:
    Call(const OrtApi* api, OrtKernelContext* context) : api_(api), context_(context) {}

    // Fails unless it has that element type: inputs that are variadic may have any.
    Tensor input(size_t index, ElementType type = kFloat) const;
    void* output(const std::vector<int64_t>& dims, size_t index = 0) const;

    // The session's own threads.
    hc_exec exec();

   private:
    const OrtApi* api_;
    OrtKernelContext* context_;
};

} // namespace hc::ort
