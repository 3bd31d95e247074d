// The nodes of one compiled library, as the compiler (lower/tvm_nodes.py) writes them into its read-only data. Numbers are
// little-endian; a text is its length (u32), then its bytes:
//
//     "HCNODES1", u32 count, then each node:
//         text op, text name
//         u32 attributes, each: text name, u8 kind ('i', 'f' or 's'), u32 count, and so many int64, float or bytes
//         u32 inputs, each: i32 place. From 0 on: that activation of a call. -1: absent. -2: a constant, and then
//             u32 element type, u32 rank, int64 sizes, u64 offset of its values from the beginning, a multiple of 64
#pragma once

#include <map>

#include "nodes/host.h"

namespace hc::tvm {

using nodes::Characteristic;
using nodes::ElementType;
using nodes::Tensor;

struct Attribute {
    char kind;
    std::vector<int64_t> ints;
    std::vector<float> floats;
    std::string text;
};

struct Input {
    static constexpr int32_t kAbsent = -1, kConstant = -2;
    int32_t place;
    Tensor constant;
};

class Node final : public nodes::Node {
   public:
    std::string op;
    std::vector<Input> inputs;

    // Reads the node at `at`, and leaves `at` behind it. Constants stay where they are.
    Node(const uint8_t* model, const uint8_t*& at);

    size_t activations() const; // of a call
    std::string name() const override { return name_; }
    int64_t attribute(const char* name) const override;
    float float_attribute(const char* name) const override;
    std::vector<int64_t> attributes(const char* name) const override;
    std::vector<float> float_attributes(const char* name) const override;
    int64_t attribute_or(const char* name, int64_t otherwise) const override;
    float attribute_or(const char* name, float otherwise) const override;
    std::string attribute_or(const char* name, const char* otherwise) const override;
    size_t input_count() const override { return inputs.size(); }
    bool has_input(size_t index) const override;
    Tensor constant(size_t index, const char* name, ElementType type, Characteristic kind) const override;

   private:
    std::string name_;
    std::map<std::string, Attribute> attributes_;

    const Attribute& found(const char* name, char kind) const;
    const Attribute* find(const char* name, char kind) const;
};

std::vector<Node> read(const uint8_t* model);

} // namespace hc::tvm
