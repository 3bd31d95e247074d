#include "tvm/model.h"

#include <string.h>

namespace hc::tvm {
namespace {

template <class T>
T next(const uint8_t*& at) {
    T value;
    memcpy(&value, at, sizeof value);
    at += sizeof value;
    return value;
}

template <class T>
std::vector<T> several(const uint8_t*& at, size_t count) {
    std::vector<T> values(count);
    if (count) memcpy(values.data(), at, count * sizeof(T));
    at += count * sizeof(T);
    return values;
}

std::string text(const uint8_t*& at) {
    const size_t size = next<uint32_t>(at);
    at += size;
    return {reinterpret_cast<const char*>(at - size), size};
}

Attribute attribute_at(const uint8_t*& at) {
    Attribute attribute{};
    attribute.kind = static_cast<char>(next<uint8_t>(at));
    if (attribute.kind == 's') {
        attribute.text = text(at);
        return attribute;
    }
    const size_t count = next<uint32_t>(at);
    if (attribute.kind == 'i')
        attribute.ints = several<int64_t>(at, count);
    else
        attribute.floats = several<float>(at, count);
    return attribute;
}

Input input_at(const uint8_t* model, const uint8_t*& at) {
    Input input{next<int32_t>(at), {}};
    if (input.place != Input::kConstant) return input;
    input.constant.type = static_cast<int>(next<uint32_t>(at));
    const size_t rank = next<uint32_t>(at);
    input.constant.dims = several<int64_t>(at, rank);
    input.constant.data = model + next<uint64_t>(at);
    return input;
}

} // namespace

Node::Node(const uint8_t* model, const uint8_t*& at) : op(text(at)), name_(text(at)) {
    for (uint32_t left = next<uint32_t>(at); left; --left) {
        std::string name = text(at);
        attributes_.emplace(std::move(name), attribute_at(at));
    }
    for (uint32_t left = next<uint32_t>(at); left; --left) inputs.push_back(input_at(model, at));
}

size_t Node::activations() const {
    int32_t most = -1;
    for (const Input& input : inputs) most = input.place > most ? input.place : most;
    return static_cast<size_t>(most + 1);
}

const Attribute* Node::find(const char* name, char kind) const {
    const auto place = attributes_.find(name);
    return place == attributes_.end() || place->second.kind != kind ? nullptr : &place->second;
}

const Attribute& Node::found(const char* name, char kind) const {
    if (const Attribute* attribute = find(name, kind)) return *attribute;
    fail(HC_INVALID_ARGUMENT, "attribute %s is missing", name);
}

int64_t Node::attribute(const char* name) const { return found(name, 'i').ints.at(0); }
float Node::float_attribute(const char* name) const { return found(name, 'f').floats.at(0); }
std::vector<int64_t> Node::attributes(const char* name) const { return found(name, 'i').ints; }
std::vector<float> Node::float_attributes(const char* name) const { return found(name, 'f').floats; }

int64_t Node::attribute_or(const char* name, int64_t otherwise) const {
    const Attribute* attribute = find(name, 'i');
    return attribute ? attribute->ints.at(0) : otherwise;
}

float Node::attribute_or(const char* name, float otherwise) const {
    const Attribute* attribute = find(name, 'f');
    return attribute ? attribute->floats.at(0) : otherwise;
}

std::string Node::attribute_or(const char* name, const char* otherwise) const {
    const Attribute* attribute = find(name, 's');
    return attribute ? attribute->text : otherwise;
}

bool Node::has_input(size_t index) const { return index < inputs.size() && inputs[index].place != Input::kAbsent; }

Tensor Node::constant(size_t index, const char* name, ElementType type, Characteristic kind) const {
    if (kind == nodes::kOptional && !has_input(index)) return {};
    if (index >= inputs.size() || inputs[index].place != Input::kConstant)
        fail(HC_INVALID_ARGUMENT, "input %zu (%s) must be a constant", index, name);
    const Tensor& tensor = inputs[index].constant;
    if (tensor.type != type)
        fail(HC_INVALID_ARGUMENT, "input %zu (%s) has element type %d; wanted %d", index, name, tensor.type, type);
    return tensor;
}

std::vector<Node> read(const uint8_t* model) {
    if (memcmp(model, "HCNODES1", 8)) fail(HC_INVALID_ARGUMENT, "these are no nodes of this version");
    const uint8_t* at = model + 8;
    std::vector<Node> nodes;
    for (uint32_t left = next<uint32_t>(at); left; --left) nodes.emplace_back(model, at);
    return nodes;
}

} // namespace hc::tvm
