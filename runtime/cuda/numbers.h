// Numbers that C++ has no name for.
#pragma once

#include <stdint.h>

namespace hc::cuda {

struct alignas(16) Words {
    uint32_t at[4];
};

// The bits of an fp16 and of a bf16 number.
struct Half {
    uint16_t bits;
};
struct Bf16 {
    uint16_t bits;
};

} // namespace hc::cuda
