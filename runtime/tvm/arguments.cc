#include "tvm/arguments.h"

namespace hc::tvm {
namespace {

int element_type(DLDataType type) {
    if (type.lanes != 1) return nodes::kAny;
    if (type.code == kDLFloat && type.bits == 32) return nodes::kFloat;
    if (type.code == kDLInt && type.bits == 64) return nodes::kInt64;
    if (type.code == kDLUInt && type.bits == 8) return nodes::kUint8;
    return type.code == kDLBool || (type.code == kDLUInt && type.bits == 1) ? nodes::kBool : nodes::kAny;
}

const char* name_of(DeviceType type) { return type == kCPU ? "the CPU" : "a CUDA device"; }

} // namespace

Arguments::Arguments(const Node& node, const TVMFFIAny* args, size_t count, DeviceType type)
    : node_(node), args_(args), count_(count), activations_(node.activations()), type_(type) {}

const DLTensor& Arguments::given(size_t place) const {
    if (place >= count_) fail(HC_INVALID_ARGUMENT, "a call has %zu arguments; wanted more", count_);
    const DLTensor* given = nullptr;
    if (args_[place].type_index == kTensorObject)
        given = reinterpret_cast<const DLTensor*>(args_[place].object + 1);
    else if (args_[place].type_index == kDLTensorPtr)
        given = static_cast<const DLTensor*>(args_[place].pointer);
    if (!given) fail(HC_INVALID_ARGUMENT, "argument %zu is no tensor", place);
    if (given->device.type != type_)
        fail(HC_INVALID_ARGUMENT, "argument %zu lies on device type %d; wanted %s", place, given->device.type,
             name_of(type_));
    return *given;
}

Tensor Arguments::tensor(size_t place) const {
    const DLTensor& given = this->given(place);
    Tensor tensor;
    tensor.dims.assign(given.shape, given.shape + given.ndim);
    tensor.type = element_type(given.dtype);
    int64_t step = 1;
    for (size_t dim = tensor.dims.size(); dim--;) {
        if (given.strides && tensor.dims[dim] > 1 && given.strides[dim] != step && tensor.count())
            fail(HC_INVALID_ARGUMENT, "argument %zu is not dense", place);
        step *= tensor.dims[dim];
    }
    alignas(16) static const char nothing = 0; // an empty tensor may have no memory, and is not absent
    tensor.data = given.data ? static_cast<const char*>(given.data) + given.byte_offset : &nothing;
    return tensor;
}

Tensor Arguments::input(size_t index, ElementType type) const {
    if (!node_.has_input(index)) fail(HC_INVALID_ARGUMENT, "input %zu is missing", index);
    const Input& input = node_.inputs[index];
    if (input.place == Input::kConstant) return input.constant;
    const Tensor tensor = this->tensor(static_cast<size_t>(input.place));
    if (type != nodes::kAny && tensor.type != type)
        fail(HC_INVALID_ARGUMENT, "input %zu has element type %d; wanted %d", index, tensor.type, type);
    return tensor;
}

void* Arguments::output(const std::vector<int64_t>& dims, size_t index) const {
    const Tensor tensor = this->tensor(activations_ + index);
    if (tensor.dims != dims || tensor.type != nodes::kFloat)
        fail(HC_INVALID_ARGUMENT, "output %zu was given shape %s; it has %s, of floats", index,
             nodes::text_of(tensor.dims).c_str(), nodes::text_of(dims).c_str());
    return const_cast<void*>(tensor.data);
}

int32_t Arguments::device() const {
    const int32_t first = given(0).device.id;
    for (size_t place = 1; place < count_; ++place)
        if (const int32_t id = given(place).device.id; id != first)
            fail(HC_INVALID_ARGUMENT, "argument %zu lies on device %d, argument 0 on device %d", place, id, first);
    return first;
}

} // namespace hc::tvm
