// One block of memory for the tensors of a run: those that do not live at the same time share their places.
#pragma once

#include <vector>

#include "ops/scratch.h"

namespace hc {

struct Arena {
    explicit Arena(size_t bytes) : size(bytes), memory(bytes) {}
    size_t size;
    Scratch<uint8_t> memory;
};

// Places by first fit, in the order of the calls.
class Placement {
   public:
    // Where `bytes` go that live from step `first` to step `last`.
    size_t place(size_t bytes, size_t first, size_t last);

    size_t size() const { return size_; }

   private:
    struct Block {
        size_t begin, end, first, last;
    };
    std::vector<Block> blocks_; // by `begin`
    size_t size_ = 0;
};

} // namespace hc
