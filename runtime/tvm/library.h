// A compiled library as its packed function sees it: hc_node(index, activations..., outputs...) runs one of its nodes, by a
// kernel of the list that the library has.
#pragma once

#include <memory>
#include <mutex>

#include "nodes/kernel_list.h"
#include "tvm/api.h"
#include "tvm/model.h"

extern "C" const uint8_t hc_nodes[]; // of the library that this is linked into

namespace hc::tvm {

// `Call` is made of a node and the arguments behind its number; a kernel has a signature, is made of a node, and runs calls.
template <class Call>
class Library {
   public:
    template <class... Of>
    explicit Library(nodes::Kernels<Of...>) : operators_{Operator{Of::signature.op, make<Of>}...} {}

    void run(const TVMFFIAny* args, int32_t count) {
        if (count < 1 || args[0].type_index != kInt)
            fail(HC_INVALID_ARGUMENT, "the first argument is the node's number");
        const size_t index = static_cast<size_t>(args[0].integer);
        if (index >= nodes_.size()) fail(HC_INVALID_ARGUMENT, "there are %zu nodes", nodes_.size());
        const Node& node = nodes_[index];
        hc_error error{};
        const hc_code code = guarded(&error, [&] {
            Slot& slot = slots_[index];
            std::call_once(slot.once, [&] { slot.kernel = made(node); });
            Call call(node, args + 1, static_cast<size_t>(count - 1));
            slot.kernel->run(call);
        });
        if (code != HC_OK) fail(code, "%s '%s': %s", node.op.c_str(), node.name().c_str(), error.text);
    }

   private:
    struct Kernel {
        virtual ~Kernel() = default;
        virtual void run(Call& call) const = 0;
    };

    template <class Of>
    struct Made final : Kernel {
        Of kernel;
        explicit Made(const Node& node) : kernel(node) {}
        void run(Call& call) const override { kernel.run(call); }
    };

    template <class Of>
    static std::unique_ptr<Kernel> make(const Node& node) {
        return std::make_unique<Made<Of>>(node);
    }

    struct Operator {
        const char* name;
        std::unique_ptr<Kernel> (*make)(const Node&);
    };

    // A kernel is made when its node first runs, once, whichever thread comes first.
    struct Slot {
        std::once_flag once;
        std::unique_ptr<Kernel> kernel;
    };

    std::unique_ptr<Kernel> made(const Node& node) const {
        for (const Operator& each : operators_)
            if (node.op == each.name) return each.make(node);
        fail(HC_INVALID_ARGUMENT, "there is no kernel of that name");
    }

    std::vector<Operator> operators_;
    std::vector<Node> nodes_ = read(hc_nodes);
    std::vector<Slot> slots_ = std::vector<Slot>(nodes_.size());
};

// What the packed function of `library` does, and returns: 0, or -1 with an error raised.
template <class Call>
int call_node(Library<Call>& (*library)(), const TVMFFIAny* args, int32_t count) noexcept {
    hc_error error{};
    if (guarded(&error, [&] { library().run(args, count); }) == HC_OK) return 0;
    if (TVMFFIErrorSetRaisedFromCStr) TVMFFIErrorSetRaisedFromCStr("RuntimeError", error.text);
    return -1;
}

} // namespace hc::tvm
