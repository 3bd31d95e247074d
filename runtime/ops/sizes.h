// Sizes that cannot overflow.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "ops/error.h"

namespace hc {

inline size_t product(size_t a, size_t b) {
    size_t result;
    if (__builtin_mul_overflow(a, b, &result) || result > PTRDIFF_MAX) fail(HC_INVALID_ARGUMENT, "a size overflows");
    return result;
}

template <class... Rest>
size_t product(size_t a, size_t b, Rest... rest) {
    return product(product(a, b), rest...);
}

constexpr size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

inline size_t ceil_div(size_t a, size_t b) { return a / b + (a % b != 0); }

inline size_t round_up(size_t a, size_t to) { return product(ceil_div(a, to), to); }

} // namespace hc
