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

// What a linear layer or a convolution does after its product: attributes activation, low and high; input residual.
class Epilogue {
   public:
    explicit Epilogue(const Node& node);
    hc_epilogue of(const Call& call, const std::vector<int64_t>& dims) const;

   private:
    hc_epilogue epilogue_{};
    bool has_residual_;
};

// Y (..., N) = CodebookLinear(X (..., K), codes, codebook, scale, bias?, residual?)
class LinearKernel {
   public:
    static constexpr const char* op = "CodebookLinear";
    static constexpr ElementType input = kFloat;
    static constexpr size_t inputs = 6;
    explicit LinearKernel(const Node& node);
    void run(Call& call) const;

   private:
    int64_t rows_, columns_;
    Weight weight_;
    Epilogue epilogue_;
};

// Y (B, N, ...) = CodebookConv(X (B, C, H, W) or (B, C, L), codes, codebook, scale, bias?, residual?)
class ConvKernel {
   public:
    static constexpr const char* op = "CodebookConv";
    static constexpr ElementType input = kFloat;
    static constexpr size_t inputs = 6;
    explicit ConvKernel(const Node& node);
    void run(Call& call) const;

   private:
    size_t spatial_; // 1 or 2 dimensions
    hc_conv_desc desc_{};
    int64_t rows_;
    Weight weight_;
    Epilogue epilogue_;
};

// Y (..., K) = CodebookEmbedding(ids (...), codes, codebook, scale)
class EmbeddingKernel {
   public:
    static constexpr const char* op = "CodebookEmbedding";
    static constexpr ElementType input = kInt64;
    static constexpr size_t inputs = 4;
    explicit EmbeddingKernel(const Node& node);
    void run(Call& call) const;

   private:
    int64_t columns_;
    Weight weight_;
};

} // namespace hc::ort
