// Sums that the compiler vectorises: 32 parts, joined in a fixed order, so that all instruction sets agree to the bit.
#pragma once

#include "inline.h"

namespace hc {
namespace {

constexpr size_t kParts = 32;

template <size_t Half>
HC_INLINE float joined(const float (&part)[2 * Half]) {
    float pairs[Half];
    for (size_t j = 0; j < Half; ++j) pairs[j] = part[j] + part[j + Half];
    if constexpr (Half == 1)
        return pairs[0];
    else
        return joined<Half / 2>(pairs);
}

// The sum of term(i) over i < n.
template <class Term>
HC_INLINE float sum_of(size_t n, Term&& term) {
    float part[kParts] = {};
    size_t i = 0;
    for (; i + kParts <= n; i += kParts)
        for (size_t j = 0; j < kParts; ++j) part[j] += term(i + j);
    for (size_t j = 0; i + j < n; ++j) part[j] += term(i + j);
    return joined<kParts / 2>(part);
}

} // namespace
} // namespace hc
