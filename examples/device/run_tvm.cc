// Runs a library that `export_tvm` made: run_tvm model.so float32:1x3x32x32 < inputs > outputs
//
// An argument for each input, in the order of the model's, whose values stand in the same order in the input; a transformer
// may take int64:1x128 int64:1x128. The library has our kernels and all weights in it, and checks what it is given. It needs
// libtvm_ffi and libtvm_runtime, nothing else of TVM.
#include <tvm/ffi/container/array.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/dtype.h>
#include <tvm/ffi/extra/module.h>

#include <cstring>

#include "tensors.h"

namespace ffi = tvm::ffi;

namespace {

struct Memory {
    void AllocData(DLTensor* tensor) {
        // 64: what TVM's generated code and whole cache lines ask for
        tensor->data = std::aligned_alloc(64, (ffi::GetDataSize(*tensor) + 63) / 64 * 64);
        if (!tensor->data) throw std::bad_alloc();
    }
    void FreeData(DLTensor* tensor) { std::free(tensor->data); }
};

ffi::Function function(const ffi::Module& module, const char* name) {
    const ffi::Optional<ffi::Function> found = module->GetFunction(name);
    if (!found) throw std::runtime_error(std::string("the library has no function ") + name);
    return found.value();
}

// The model, on the CPU and with a pool of memory that its calls share.
ffi::Function load(const char* path) {
    constexpr int kPooled = 2;
    // a name alone is looked for where the system's libraries lie, not here
    const auto library = ffi::Module::LoadFromFile(std::strchr(path, '/') ? path : std::string("./") + path);
    const auto machine = function(library, "vm_load_executable")().cast<ffi::Module>();
    function(machine, "vm_initialization")(static_cast<int>(kDLCPU), 0, kPooled);
    return function(machine, "main");
}

ffi::Any input_of(const char* told) {
    const Tensor read = read_tensor(told);
    const auto input = ffi::Tensor::FromNDAlloc(Memory(), ffi::ShapeView(read.sizes.data(), read.sizes.size()),
                                                ffi::StringToDLDataType(read.type), DLDevice{kDLCPU, 0});
    std::memcpy(input.data_ptr(), read.values.data(), read.values.size());
    return input;
}

int run(int count, char** arguments) {
    if (count < 3) throw std::runtime_error("usage: run_tvm LIBRARY TYPE:SIZExSIZE... < INPUTS > OUTPUTS");
    std::vector<ffi::Any> inputs;
    for (int i = 2; i < count; ++i) inputs.push_back(input_of(arguments[i]));
    read_end();
    const ffi::Function model = load(arguments[1]);
    const std::vector<ffi::AnyView> given(inputs.begin(), inputs.end());
    ffi::Any outputs;
    model.CallPacked(given.data(), static_cast<int32_t>(given.size()), &outputs);
    for (const ffi::Any& output : outputs.cast<ffi::Array<ffi::Any>>()) {
        if (const auto size = output.as<int64_t>()) { // of a dim, which the model returns
            write_tensor("int64", {}, &*size);
            continue;
        }
        const auto tensor = output.cast<ffi::Tensor>();
        const ffi::ShapeView sizes = tensor.shape();
        write_tensor(ffi::DLDataTypeToString(tensor.dtype()), {sizes.begin(), sizes.end()}, tensor.data_ptr());
    }
    return 0;
}

} // namespace

int main(int count, char** arguments) { return guarded(run, count, arguments); }
