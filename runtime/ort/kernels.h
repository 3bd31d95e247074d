// The three ops of domain com.hashcompile, as ONNX Runtime kernels. A kernel is immutable once made: one serves
// concurrent runs.
#pragma once

#include <memory>

#include "hashcompile.h"
#include "ort/host.h"

namespace hc::ort {

struct WeightDeleter {
    void operator()(hc_weight* weight) const { hc_weight_close(weight); }
};
using Weight = std::unique_ptr<hc_weight, WeightDeleter>;

// Y (..., N) = CodebookLinear(X (..., K), codes, codebook, scale, bias?)
class LinearKernel {
   public:
    static constexpr const char* op = "CodebookLinear";
    static constexpr ElementType input = kFloat;
    static constexpr bool has_bias = true;
    explicit LinearKernel(const Node& node);
    void run(Call& call) const;

   private:
    int64_t rows_, columns_;
    Weight weight_;
};

// Y (B, N, ...) = CodebookConv(X (B, C, H, W) or (B, C, L), codes, codebook, scale, bias?)
class ConvKernel {
   public:
    static constexpr const char* op = "CodebookConv";
    static constexpr ElementType input = kFloat;
    static constexpr bool has_bias = true;
    explicit ConvKernel(const Node& node);
    void run(Call& call) const;

   private:
    size_t spatial_; // 1 or 2 dimensions
    hc_conv_desc desc_{};
    int64_t rows_;
    Weight weight_;
};

// Y (..., K) = CodebookEmbedding(ids (...), codes, codebook, scale)
class EmbeddingKernel {
   public:
    static constexpr const char* op = "CodebookEmbedding";
    static constexpr ElementType input = kInt64;
    static constexpr bool has_bias = false;
    explicit EmbeddingKernel(const Node& node);
    void run(Call& call) const;

   private:
    int64_t columns_;
    Weight weight_;
};

} // namespace hc::ort
