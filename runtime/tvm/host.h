// TVM as a host: the arguments of a packed function, and TVM's threads.
#pragma once

#include "tvm/api.h"
#include "tvm/model.h"

namespace hc::tvm {

class Call final : public nodes::Call {
   public:
    // The activations of `node` in `args`, then its outputs, which exist already.
    Call(const Node& node, const TVMFFIAny* args, size_t count);

    Tensor input(size_t index, ElementType type = nodes::kFloat) const override;
    void* output(const std::vector<int64_t>& dims, size_t index = 0) const override;
    hc_exec exec() override;

   private:
    const Node& node_;
    const TVMFFIAny* args_;
    size_t count_, activations_;
};

} // namespace hc::tvm
