// ONNX Runtime in C++ words: tensors, attributes, its thread pool; its errors become Failures.
#pragma once

#include "nodes/host.h"
#include "ort/api.h"

namespace hc::ort {

using namespace nodes;

// Throws what a failed call says.
void check(const OrtApi* api, OrtStatus* status);

class Node final : public nodes::Node {
   public:
    Node(const OrtApi* api, const OrtKernelInfo* info) : api_(api), info_(info) {}

    std::string name() const override;
    int64_t attribute(const char* name) const override;
    float float_attribute(const char* name) const override;
    std::vector<int64_t> attributes(const char* name) const override;
    std::vector<float> float_attributes(const char* name) const override;
    int64_t attribute_or(const char* name, int64_t otherwise) const override;
    float attribute_or(const char* name, float otherwise) const override;
    std::string attribute_or(const char* name, const char* otherwise) const override;
    size_t input_count() const override;
    bool has_input(size_t index) const override;
    Tensor constant(size_t index, const char* name, ElementType type, Characteristic kind) const override;

   private:
    const OrtApi* api_;
    const OrtKernelInfo* info_;
};

class Call final : public nodes::Call {
   public:
    Call(const OrtApi* api, OrtKernelContext* context) : api_(api), context_(context) {}

    Tensor input(size_t index, ElementType type = kFloat) const override;
    void* output(const std::vector<int64_t>& dims, size_t index = 0) const override;
    hc_exec exec() override;

   private:
    const OrtApi* api_;
    OrtKernelContext* context_;
};

} // namespace hc::ort
