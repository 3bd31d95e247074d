#include "hashed_f32/kernel.h"
#include "layout.h"

namespace hc {
namespace {

void multiply(const HashedCall& call) {
    for (int m = 0; m < call.rows; ++m)
        for (size_t t = 0; t < call.tiles; ++t) {
            const float* x = call.x[call.place[t] & 1] + m * call.pitch + t * kTile;
            const float* tile = call.pool + size_t{call.place[t] >> 1} * kTile * kTile;
            for (int j = 0; j < kTile; ++j)
                for (int r = 0; r < kTile; ++r) call.sum[m * kTile + r] += x[j] * tile[j * kTile + r];
        }
}

} // namespace

extern const HashedF32 hashed_f32_scalar = multiply;

} // namespace hc
