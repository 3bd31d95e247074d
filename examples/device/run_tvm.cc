// Runs a library that `export_tvm` made: run_tvm model.so 1 3 32 32 < input.f32 > output.f32
//
// The library has our kernels and all weights in it. It needs libtvm_ffi and libtvm_runtime, nothing else of TVM.
#include <tvm/ffi/container/array.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/module.h>

#include <cstring>

#include "floats.h"

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
    const auto library = ffi::Module::LoadFromFile(path);
    const auto machine = function(library, "vm_load_executable")().cast<ffi::Module>();
    function(machine, "vm_initialization")(static_cast<int>(kDLCPU), 0, kPooled);
    return function(machine, "main");
}

int run(int count, char** arguments) {
    if (count < 3) throw std::runtime_error("usage: run_tvm LIBRARY SIZE... < INPUT > OUTPUT");
    const std::vector<int64_t> sizes = sizes_of(arguments + 2, arguments + count);
    const std::vector<float> values = read_floats(sizes);
    const ffi::Function model = load(arguments[1]);
    const auto input = ffi::Tensor::FromNDAlloc(Memory(), ffi::ShapeView(sizes.data(), sizes.size()),
                                                DLDataType{kDLFloat, 32, 1}, DLDevice{kDLCPU, 0});
    std::memcpy(input.data_ptr(), values.data(), values.size() * sizeof(float));
    for (const ffi::Tensor& output : model(input).cast<ffi::Array<ffi::Tensor>>())
        write_floats(static_cast<const float*>(output.data_ptr()), static_cast<size_t>(output.numel()));
    return 0;
}

} // namespace

int main(int count, char** arguments) { return guarded(run, count, arguments); }
