// What a host tells a node of ours, and does for it: ONNX Runtime (ort/) and TVM (tvm/) are hosts. Every function of a host
// throws a Failure where it cannot do what it is asked for.
#pragma once

#include <string>
#include <vector>

#include "hashcompile.h"
#include "ops/error.h"

namespace hc::nodes {

// Turns the code of a call of the C ABI into a Failure.
void check(hc_code code, const hc_error& error);

std::string text_of(const std::vector<int64_t>& dims);

// Numbered as ONNX numbers them.
enum ElementType { kAny = 0, kFloat = 1, kUint8 = 2, kInt64 = 7, kBool = 9 };
enum Characteristic { kRequired = 0, kOptional = 1, kVariadic = 2 };

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

// What a host asks of an op; its outputs are floats.
struct Signature {
    const char* op;
    const Formal* inputs;
    size_t input_count;
    Characteristic output; // kVariadic for any number of them
};

// The node that a kernel is made for.
class Node {
   public:
    virtual std::string name() const = 0;
    virtual int64_t attribute(const char* name) const = 0;
    virtual float float_attribute(const char* name) const = 0;
    virtual std::vector<int64_t> attributes(const char* name) const = 0;
    virtual std::vector<float> float_attributes(const char* name) const = 0;

    // The attribute, or a default where the node has none.
    virtual int64_t attribute_or(const char* name, int64_t otherwise) const = 0;
    virtual float attribute_or(const char* name, float otherwise) const = 0;
    virtual std::string attribute_or(const char* name, const char* otherwise) const = 0;

    virtual size_t input_count() const = 0;

    // Is this input given?
    virtual bool has_input(size_t index) const = 0;

    // A constant input; fails unless it is an initializer of that element type. Absent: optional and not given.
    virtual Tensor constant(size_t index, const char* name, ElementType type, Characteristic kind) const = 0;

   protected:
    ~Node() = default;
};

// One run of a kernel.
class Call {
   public:
    // Fails unless it has that element type: inputs that are variadic may have any.
    virtual Tensor input(size_t index, ElementType type = kFloat) const = 0;
    virtual void* output(const std::vector<int64_t>& dims, size_t index = 0) const = 0;

    // The host's own threads.
    virtual hc_exec exec() = 0;

   protected:
    ~Call() = default;
};

} // namespace hc::nodes
