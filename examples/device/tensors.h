// What both programs do beside running a model: tensors in and out, told as TYPE:SIZExSIZE..., and errors.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

struct Tensor {
    std::string type; // as NumPy names it
    std::vector<int64_t> sizes;
    std::vector<char> values;
};

inline size_t bytes_of(const std::string& type) {
    if (type == "int64") return 8;
    if (type == "float32" || type == "int32") return 4;
    if (type == "bool") return 1;
    throw std::runtime_error("a type is float32, int64, int32 or bool: '" + type + "' is none");
}

// The tensor of `told`, such as int64:1x128, from the input.
inline Tensor read_tensor(const std::string& told) {
    const size_t colon = told.find(':');
    Tensor tensor{told.substr(0, colon), {}, {}};
    size_t bytes = bytes_of(tensor.type);
    if (colon == std::string::npos) throw std::runtime_error(told + " has no sizes: wanted such as float32:1x3x32x32");
    for (const char* at = told.c_str() + colon; *at;) {
        char* end = nullptr;
        const long long size = std::strtoll(at + 1, &end, 10);
        if (size < 1 || size > INT32_MAX || (*end && *end != 'x'))
            throw std::runtime_error(told + ": a size is a whole number from 1 on");
        if (__builtin_mul_overflow(bytes, static_cast<size_t>(size), &bytes) || bytes > PTRDIFF_MAX)
            throw std::runtime_error("no memory holds a tensor of these sizes");
        tensor.sizes.push_back(size);
        at = end;
    }
    tensor.values.resize(bytes);
    if (std::fread(tensor.values.data(), 1, bytes, stdin) != bytes)
        throw std::runtime_error("the input ends before the tensor is full");
    return tensor;
}

// Behind the last tensor: what is left would mean that a type or a size was told wrong.
inline void read_end() {
    if (std::fgetc(stdin) != EOF) throw std::runtime_error("the input goes on behind the last tensor");
}

// Values to the output; what they are to the error output.
inline void write_tensor(const std::string& type, const std::vector<int64_t>& sizes, const void* values) {
    size_t bytes = bytes_of(type);
    std::string told = type + ":";
    for (const int64_t size : sizes) {
        bytes *= static_cast<size_t>(size);
        told += (told.back() == ':' ? "" : "x") + std::to_string(size);
    }
    std::fprintf(stderr, "%s\n", told.c_str());
    if (std::fwrite(values, 1, bytes, stdout) != bytes) throw std::runtime_error("cannot write the output");
}

// What `run` returns, with the output written to its end; 1, with the message on the error output, where it throws.
inline int guarded(int (*run)(int, char**), int count, char** arguments) {
    try {
        const int status = run(count, arguments);
        if (std::fflush(stdout)) throw std::runtime_error("cannot write the output");
        return status;
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
