// TVM on a CPU as a host: the arguments of a packed function, and TVM's threads.
#pragma once

#include "tvm/arguments.h"

namespace hc::tvm {

class Call final : public nodes::Call {
   public:
    // Arguments as of `Arguments`, in the memory of the CPU.
    Call(const Node& node, const TVMFFIAny* args, size_t count) : arguments_(node, args, count, kCPU) {}

    Tensor input(size_t index, ElementType type = nodes::kFloat) const override { return arguments_.input(index, type); }
    void* output(const std::vector<int64_t>& dims, size_t index = 0) const override {
        return arguments_.output(dims, index);
    }
    hc_exec exec() override;

   private:
    Arguments arguments_;
};

} // namespace hc::tvm
