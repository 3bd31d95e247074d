// The arguments of a packed function: the activations of a node, then its outputs, which exist already.
#pragma once

#include "tvm/api.h"
#include "tvm/model.h"

namespace hc::tvm {

class Arguments {
   public:
    // Every tensor among them must lie on a device of that type; `node` and `args` are only looked at.
    Arguments(const Node& node, const TVMFFIAny* args, size_t count, DeviceType type);

    Tensor input(size_t index, ElementType type) const;
    void* output(const std::vector<int64_t>& dims, size_t index) const;

    // Which device of its type all of them lie on. Fails where they lie on several.
    int32_t device() const;

   private:
    Tensor tensor(size_t place) const;
    const DLTensor& given(size_t place) const;

    const Node& node_;
    const TVMFFIAny* args_;
    size_t count_, activations_;
    DeviceType type_;
};

} // namespace hc::tvm
