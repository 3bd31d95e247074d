// Y (..., N) = WideLinear(X (..., K), values (N, K), planes (K, bits), start (bits), sketches (bits / 8, N) uint8,
// limit (N) uint8, bias? (N)): the products with the rows whose sketches are near that of X, and -infinity elsewhere.
#pragma once

#include <memory>

#include "hashcompile.h"
#include "nodes/host.h"

namespace hc::nodes {

constexpr Formal kWideInputs[] = {{kFloat, kRequired}, {kFloat, kRequired}, {kFloat, kRequired}, {kFloat, kRequired},
                                  {kUint8, kRequired}, {kUint8, kRequired}, {kFloat, kOptional}};

struct WideDeleter {
    void operator()(hc_wide* wide) const { hc_wide_close(wide); }
};

class WideKernel {
   public:
    static constexpr Signature signature = {"WideLinear", kWideInputs, 7, kRequired};
    explicit WideKernel(const Node& node);
    void run(Call& call) const;

   private:
    int64_t rows_, columns_;
    std::unique_ptr<hc_wide, WideDeleter> wide_;
};

} // namespace hc::nodes
