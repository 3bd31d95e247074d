// The ops that are one layer each, as ONNX Runtime kernels. A kernel is immutable once made: one serves concurrent
// runs.
#pragma once

#include "ort/weight.h"

namespace hc::ort {

constexpr Formal kLayerInputs[] = {{kFloat, kRequired}, {kUint8, kRequired}, {kFloat, kRequired},
                                   {kFloat, kRequired}, {kFloat, kOptional}, {kFloat, kOptional}};
constexpr Formal kEmbeddingInputs[] = {{kInt64, kRequired}, {kUint8, kRequired}, {kFloat, kRequired},
                                       {kFloat, kRequired}};

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
    static constexpr Signature signature = {"CodebookLinear", kLayerInputs, 6, kRequired};
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
    static constexpr Signature signature = {"CodebookConv", kLayerInputs, 6, kRequired};
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
    static constexpr Signature signature = {"CodebookEmbedding", kEmbeddingInputs, 4, kRequired};
    explicit EmbeddingKernel(const Node& node);
    void run(Call& call) const;

   private:
    int64_t columns_;
    Weight weight_;
};

} // namespace hc::ort
