// The reference: every other kernel of this room gives the same sums.
#include "int8/kernel.h"

#include "inline.h"
#include "layout.h"

namespace hc {
namespace {

void int8(const Int8Call& call) {
    for (int m = 0; m < call.rows; ++m)
        for (int n = 0; n < call.tiles * kTile; ++n) {
            const int8_t* w = call.weights + n / kTile * kLine + n % kTile * 4;
            const uint8_t* q = call.q[m] + call.k;
            int32_t& sum = call.sum[m * kPair + n];
            if (!call.add) sum = 0;
            for (size_t g = 0; g < call.groups; ++g, w += kPairLine, q += 4)
                for (int kk = 0; kk < 4; ++kk) sum += q[kk] * w[kk];
        }
}

} // namespace

extern const Int8 int8_scalar = int8;

} // namespace hc
