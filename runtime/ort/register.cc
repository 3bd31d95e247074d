// RegisterCustomOps: the entry point that SessionOptions.register_custom_ops_library calls.
#include "nodes/all.h"
#include "ort/host.h"

namespace hc::ort {
namespace {

constexpr const char* kDomain = "com.hashcompile";

// Runs `body`; a failure becomes a status that begins with the node's name.
template <class Body>
OrtStatus* status_of(const OrtApi* api, const char* node, Body&& body) noexcept {
    hc_error error{};
    const hc_code code = guarded(&error, body);
    if (code == HC_OK) return nullptr;
    char text[2 * sizeof error.text];
    snprintf(text, sizeof text, "%s: %s", node, error.text);
    return kCreateStatus(api, code == HC_INVALID_ARGUMENT || code == HC_OUT_OF_RANGE ? kInvalidArgument : kFail, text);
}

template <class Kernel>
struct Instance {
    const OrtApi* api;
    std::string label; // op and node, for messages
    Kernel kernel;
};

template <class Kernel>
OrtStatus* create(const OrtCustomOp*, const OrtApi* api, const OrtKernelInfo* info, void** out) {
    return status_of(api, Kernel::signature.op, [&] {
        const Node node(api, info);
        const std::string name = node.name();
        hc_error error{};
        const hc_code code = guarded(&error, [&] {
            *out = new Instance<Kernel>{api, std::string(Kernel::signature.op) + " '" + name + "'", Kernel(node)};
        });
        if (code != HC_OK) fail(code, "node '%s': %s", name.c_str(), error.text);
    });
}

template <class Kernel>
OrtStatus* compute(void* kernel, OrtKernelContext* context) {
    const auto& instance = *static_cast<const Instance<Kernel>*>(kernel);
    return status_of(instance.api, instance.label.c_str(), [&] {
        Call call(instance.api, context);
        instance.kernel.run(call);
    });
}

template <class Kernel>
OrtCustomOp custom_op() {
    OrtCustomOp op{};
    op.version = kApiVersion;
    op.GetName = [](const OrtCustomOp*) { return Kernel::signature.op; };
    op.GetExecutionProviderType = [](const OrtCustomOp*) -> const char* { return nullptr; };
    op.GetInputType = [](const OrtCustomOp*, size_t i) -> int { return Kernel::signature.inputs[i].type; };
    op.GetInputTypeCount = [](const OrtCustomOp*) { return Kernel::signature.input_count; };
    op.GetOutputType = [](const OrtCustomOp*, size_t) -> int { return kFloat; };
    op.GetOutputTypeCount = [](const OrtCustomOp*) -> size_t { return 1; };
    op.KernelDestroy = [](void* kernel) { delete static_cast<Instance<Kernel>*>(kernel); };
    op.GetInputCharacteristic = [](const OrtCustomOp*, size_t i) -> int { return Kernel::signature.inputs[i].kind; };
    op.GetOutputCharacteristic = [](const OrtCustomOp*, size_t) -> int { return Kernel::signature.output; };
    op.GetInputMemoryType = [](const OrtCustomOp*, size_t) -> int { return 0; };
    op.GetVariadicInputMinArity = op.GetVariadicOutputMinArity = [](const OrtCustomOp*) { return 1; };
    op.GetVariadicInputHomogeneity = [](const OrtCustomOp*) { return 0; };
    op.GetVariadicOutputHomogeneity = [](const OrtCustomOp*) { return 1; };
    op.CreateKernelV2 = create<Kernel>;
    op.KernelComputeV2 = compute<Kernel>;
    op.GetStartVersion = [](const OrtCustomOp*) { return 1; };
    op.GetEndVersion = [](const OrtCustomOp*) { return INT32_MAX; };
    return op;
}

template <class... Kernel>
std::vector<OrtCustomOp> custom_ops(Kernels<Kernel...>) {
    return {custom_op<Kernel>()...};
}

} // namespace
} // namespace hc::ort

extern "C" HC_API OrtStatus* RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* base) {
    using namespace hc::ort;
    // Sessions keep pointers to the ops and the domain: they live as long as the process.
    static const std::vector<OrtCustomOp> ops = custom_ops(All{});
    const OrtApi* api = base->GetApi(kApiVersion);
    if (!api) return nullptr; // older than 1.17: it has said so, and will miss the ops
    return status_of(api, kDomain, [&] {
        OrtCustomOpDomain* domain = nullptr;
        check(api, kCreateCustomOpDomain(api, kDomain, &domain));
        for (const OrtCustomOp& op : ops) check(api, kDomainAdd(api, domain, &op));
        check(api, kAddDomain(api, options, domain));
    });
}
