// The packed function by which a compiled library runs its nodes: hc_node(index, activations..., outputs...).
#include <memory>
#include <mutex>

#include "nodes/all.h"
#include "tvm/host.h"

extern "C" const uint8_t hc_nodes[]; // of the library that this file is linked into

namespace hc::tvm {
namespace {

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
std::unique_ptr<Kernel> make(const Node& node) {
    return std::make_unique<Made<Of>>(node);
}

struct Operator {
    const char* name;
    std::unique_ptr<Kernel> (*make)(const Node&);
};

template <class... Of>
std::unique_ptr<Kernel> made(const Node& node, nodes::Kernels<Of...>) {
    for (const Operator& each : {Operator{Of::signature.op, make<Of>}...})
        if (node.op == each.name) return each.make(node);
    fail(HC_INVALID_ARGUMENT, "there is no kernel of that name");
}

// A kernel is made when its node first runs, once, whichever thread comes first.
struct Slot {
    std::once_flag once;
    std::unique_ptr<Kernel> kernel;
};

struct Library {
    std::vector<Node> nodes = read(hc_nodes);
    std::vector<Slot> slots = std::vector<Slot>(nodes.size());
};

void run(const TVMFFIAny* args, int32_t count) {
    static Library library;
    if (count < 1 || args[0].type_index != kInt) fail(HC_INVALID_ARGUMENT, "the first argument is the node's number");
    const size_t index = static_cast<size_t>(args[0].integer);
    if (index >= library.nodes.size()) fail(HC_INVALID_ARGUMENT, "there are %zu nodes", library.nodes.size());
    const Node& node = library.nodes[index];
    hc_error error{};
    const hc_code code = guarded(&error, [&] {
        Slot& slot = library.slots[index];
        std::call_once(slot.once, [&] { slot.kernel = made(node, nodes::All{}); });
        Call call(node, args + 1, static_cast<size_t>(count - 1));
        slot.kernel->run(call);
    });
    if (code != HC_OK) fail(code, "%s '%s': %s", node.op.c_str(), node.name().c_str(), error.text);
}

} // namespace
} // namespace hc::tvm

extern "C" HC_API int __tvm_ffi_hc_node(void*, const TVMFFIAny* args, int32_t count, TVMFFIAny*) {
    hc_error error{};
    if (hc::guarded(&error, [&] { hc::tvm::run(args, count); }) == HC_OK) return 0;
    if (TVMFFIErrorSetRaisedFromCStr) TVMFFIErrorSetRaisedFromCStr("RuntimeError", error.text);
    return -1;
}
