// The ops that are one layer each, as ONNX Runtime kernels. A kernel is immutable once made: one serves concurrent
// runs.
#pragma once

#include "nodes/conv_form.h"
#include "nodes/rows.h"
#include "nodes/weight.h"

namespace hc::nodes {

constexpr Formal kLayerInputs[] = {{kFloat, kRequired}, {kUint8, kRequired}, {kFloat, kRequired},
                                   {kFloat, kRequired}, {kFloat, kOptional}, {kFloat, kOptional}};
constexpr Formal kActivationInputs[] = {{kFloat, kRequired}};
constexpr Formal kEmbeddingInputs[] = {{kInt64, kRequired}, {kUint8, kRequired}, {kFloat, kRequired},
                                       {kFloat, kRequired}};

// activation(... + residual) after a product: attributes activation, low and high, with what their names end in; an
// input of the shape of the output.
class Epilogue {
   public:
    Epilogue(const Node& node, size_t residual, const std::string& ending = "");
    hc_epilogue of(const Call& call, const std::vector<int64_t>& dims) const;

   private:
    hc_epilogue epilogue_{};
    size_t residual_; // the input
    bool has_residual_;
};

// Y (..., N) = CodebookLinear(X (..., K), codes, codebook, scale, bias?, residual?)
class LinearKernel {
   public:
    static constexpr Signature signature = {"CodebookLinear", kLayerInputs, 6, kRequired};
    explicit LinearKernel(const Node& node);
    void run(Call& call) const;

   private:
    OpenWeight weight_;
    Epilogue epilogue_;
};

// Y (B, N, ...) = CodebookConv(X (B, C, H, W) or (B, C, L), codes, codebook, scale, bias?, residual?). The attribute
// channels_last tells which of X, and Y with the residual, have C or N as their last dim instead: HC_LAST_X, HC_LAST_Y.
class ConvKernel {
   public:
    static constexpr Signature signature = {"CodebookConv", kLayerInputs, 6, kRequired};
    explicit ConvKernel(const Node& node);
    void run(Call& call) const;

   private:
    ConvForm form_;
    int64_t rows_;
    Weight weight_;
    Epilogue epilogue_;
};

// Y = activation(X): attributes activation, low and high
class ActivationKernel {
   public:
    static constexpr Signature signature = {"Activation", kActivationInputs, 1, kRequired};
    explicit ActivationKernel(const Node& node) : epilogue_(node, 1) {}
    void run(Call& call) const;

   private:
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

} // namespace hc::nodes
