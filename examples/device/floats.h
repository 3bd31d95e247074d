// What both programs do beside running a model: sizes from the command line, floats in and out, errors.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <vector>

inline std::vector<int64_t> sizes_of(char** begin, char** end) {
    std::vector<int64_t> sizes;
    for (; begin != end; ++begin) {
        sizes.push_back(std::strtoll(*begin, nullptr, 10));
        if (sizes.back() < 1 || sizes.back() > INT32_MAX) throw std::runtime_error("a size is a whole number from 1 on");
    }
    return sizes;
}

inline std::vector<float> read_floats(const std::vector<int64_t>& sizes) {
    size_t count = 1;
    for (const int64_t size : sizes)
        if (__builtin_mul_overflow(count, static_cast<size_t>(size), &count) || count > SIZE_MAX / sizeof(float))
            throw std::runtime_error("no memory holds a tensor of these sizes");
    std::vector<float> values(count);
    if (std::fread(values.data(), sizeof(float), count, stdin) != count)
        throw std::runtime_error("the input ends before the tensor is full");
    return values;
}

inline void write_floats(const float* values, size_t count) {
    if (std::fwrite(values, sizeof(float), count, stdout) != count) throw std::runtime_error("cannot write the output");
}

// What `run` returns; 1, with the message on the error output, where it throws.
inline int guarded(int (*run)(int, char**), int count, char** arguments) {
    try {
        return run(count, arguments);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
