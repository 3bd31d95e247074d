#include "tvm/host.h"

#include <atomic>

#include "nodes/weight.h"

namespace hc::tvm {
namespace {

int element_type(DLDataType type) {
    if (type.lanes != 1) return nodes::kAny;
    if (type.code == kDLFloat && type.bits == 32) return nodes::kFloat;
    if (type.code == kDLInt && type.bits == 64) return nodes::kInt64;
    if (type.code == kDLUInt && type.bits == 8) return nodes::kUint8;
    return type.code == kDLBool || (type.code == kDLUInt && type.bits == 1) ? nodes::kBool : nodes::kAny;
}

Tensor tensor_of(const TVMFFIAny& arg, size_t place) {
    const DLTensor* given = nullptr;
    if (arg.type_index == kTensorObject)
        given = reinterpret_cast<const DLTensor*>(arg.object + 1);
    else if (arg.type_index == kDLTensorPtr)
        given = static_cast<const DLTensor*>(arg.pointer);
    if (!given) fail(HC_INVALID_ARGUMENT, "argument %zu is no tensor", place);
    if (given->device.type != kCPU)
        fail(HC_INVALID_ARGUMENT, "argument %zu lies on device type %d; wanted the CPU", place, given->device.type);
    Tensor tensor;
    tensor.dims.assign(given->shape, given->shape + given->ndim);
    tensor.type = element_type(given->dtype);
    int64_t step = 1;
    for (size_t dim = tensor.dims.size(); dim--;) {
        if (given->strides && tensor.dims[dim] > 1 && given->strides[dim] != step && tensor.count())
            fail(HC_INVALID_ARGUMENT, "argument %zu is not dense", place);
        step *= tensor.dims[dim];
    }
    static const char nothing = 0; // an empty tensor may have no memory, and is not absent
    tensor.data = given->data ? static_cast<const char*>(given->data) + given->byte_offset : &nothing;
    return tensor;
}

} // namespace

Call::Call(const Node& node, const TVMFFIAny* args, size_t count)
    : node_(node), args_(args), count_(count), activations_(node.activations()) {}

Tensor Call::input(size_t index, ElementType type) const {
    if (!node_.has_input(index)) fail(HC_INVALID_ARGUMENT, "input %zu is missing", index);
    const Input& input = node_.inputs[index];
    if (input.place == Input::kConstant) return input.constant;
    const size_t place = static_cast<size_t>(input.place);
    if (place >= count_) fail(HC_INVALID_ARGUMENT, "a call has %zu arguments; wanted more", count_);
    const Tensor tensor = tensor_of(args_[place], place);
    if (type != nodes::kAny && tensor.type != type)
        fail(HC_INVALID_ARGUMENT, "input %zu has element type %d; wanted %d", index, tensor.type, type);
    return tensor;
}

void* Call::output(const std::vector<int64_t>& dims, size_t index) const {
    const size_t place = activations_ + index;
    if (place >= count_) fail(HC_INVALID_ARGUMENT, "a call has %zu arguments; wanted more", count_);
    const Tensor tensor = tensor_of(args_[place], place);
    if (tensor.dims != dims || tensor.type != nodes::kFloat)
        fail(HC_INVALID_ARGUMENT, "output %zu was given shape %s; it has %s, of floats", index,
             nodes::text_of(tensor.dims).c_str(), nodes::text_of(dims).c_str());
    return const_cast<void*>(tensor.data);
}

hc_exec Call::exec() {
    return {nullptr, [](void*, void (*task)(void*, size_t), void* arg, size_t count) {
                struct Job {
                    void (*task)(void*, size_t);
                    void* arg;
                    size_t count;
                    std::atomic<size_t> next{0};
                } job{task, arg, count};
                const auto claim = [](int, TVMParallelGroupEnv*, void* data) {
                    Job& job = *static_cast<Job*>(data);
                    for (size_t i; (i = job.next++) < job.count;) job.task(job.arg, i);
                    return 0;
                };
                if (TVMBackendParallelLaunch) TVMBackendParallelLaunch(claim, &job, 0);
                claim(0, nullptr, &job); // without TVM's threads, all of them
            }};
}

} // namespace hc::tvm
