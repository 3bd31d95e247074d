// Y (..., N) = WideLinear(X (..., K), values (N, K), planes (K, bits), start (bits), sketches (bits / 8, N) uint8,
// limit (N) uint8, bias? (N)): the products with the rows whose sketches are near that of X, and -infinity elsewhere.
// WideCodebookLinear has codes (N, ceil(K * b / 8)) uint8, codebook (2^b) and scale (N) in the place of values.
#pragma once

#include <memory>

#include "hashcompile.h"
#include "nodes/host.h"

namespace hc::nodes {

constexpr Formal kWideInputs[] = {{kFloat, kRequired}, {kFloat, kRequired}, {kFloat, kRequired}, {kFloat, kRequired},
                                  {kUint8, kRequired}, {kUint8, kRequired}, {kFloat, kOptional}};
constexpr Formal kWideCodebookInputs[] = {{kFloat, kRequired}, {kUint8, kRequired}, {kFloat, kRequired},
                                          {kFloat, kRequired}, {kFloat, kRequired}, {kFloat, kRequired},
                                          {kUint8, kRequired}, {kUint8, kRequired}, {kFloat, kOptional}};

struct WideDeleter {
    void operator()(hc_wide* wide) const { hc_wide_close(wide); }
};

class OpenWide {
   public:
    // `desc` has the weight; planes and all that follows are inputs from `first` on.
    OpenWide(const Node& node, hc_wide_desc desc, size_t first);
    void run(Call& call) const;

   private:
    int64_t rows_, columns_;
    std::unique_ptr<hc_wide, WideDeleter> wide_;
};

class WideKernel {
   public:
    static constexpr Signature signature = {"WideLinear", kWideInputs, 7, kRequired};
    explicit WideKernel(const Node& node);
    void run(Call& call) const { wide_.run(call); }

   private:
    OpenWide wide_;
};

class WideCodebookKernel {
   public:
    static constexpr Signature signature = {"WideCodebookLinear", kWideCodebookInputs, 9, kRequired};
    explicit WideCodebookKernel(const Node& node);
    void run(Call& call) const { wide_.run(call); }

   private:
    OpenWide wide_;
};

} // namespace hc::nodes
