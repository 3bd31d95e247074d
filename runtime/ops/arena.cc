#include "ops/arena.h"

#include <algorithm>

namespace hc {

size_t Placement::place(size_t bytes, size_t first, size_t last) {
    bytes = round_up(bytes ? bytes : 1, 64);
    size_t begin = 0;
    for (const Block& block : blocks_) {
        if (block.last < first || last < block.first) continue; // never alive together
        if (block.begin >= begin + bytes) break;
        begin = std::max(begin, block.end);
    }
    const Block block{begin, begin + bytes, first, last};
    const auto at = std::upper_bound(blocks_.begin(), blocks_.end(), block,
                                     [](const Block& a, const Block& b) { return a.begin < b.begin; });
    blocks_.insert(at, block);
    size_ = std::max(size_, block.end);
    return begin;
}

} // namespace hc
