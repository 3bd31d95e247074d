// Y (..., N) = HashedLinear(X (..., K), scale (N) or (1), values (256 B), bias? (N)). Attributes: rows, in_features, seed,
// and scaled: where it is 0 there is no scale among the inputs.
#pragma once

#include <memory>

#include "hashcompile.h"
#include "nodes/host.h"

namespace hc::nodes {

constexpr Formal kHashedInputs[] = {{kFloat, kRequired}, {kFloat, kRequired}, {kFloat, kOptional}, {kFloat, kOptional}};

struct HashedDeleter {
    void operator()(hc_hashed* weight) const { hc_hashed_close(weight); }
};

class HashedKernel {
   public:
    static constexpr Signature signature = {"HashedLinear", kHashedInputs, 4, kRequired};
    explicit HashedKernel(const Node& node);
    void run(Call& call) const;

   private:
    int64_t rows_, columns_;
    std::unique_ptr<hc_hashed, HashedDeleter> weight_;
};

} // namespace hc::nodes
