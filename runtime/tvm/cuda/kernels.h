// The nodes that are computed on a GPU, in fp32: as nodes/kernels.h and nodes/hashed.h have them, with no epilogue.
#pragma once

#include "nodes/conv_form.h"
#include "nodes/kernel_list.h"
#include "nodes/rows.h"
#include "nodes/weight_form.h"
#include "tvm/cuda/host.h"

namespace hc::tvm::cuda {

struct Signature {
    const char* op;
};

class LinearKernel {
   public:
    static constexpr Signature signature = {"CodebookLinear"};
    explicit LinearKernel(const Node& node);
    void run(Call& call) const;

   private:
    hc_weight_desc weight_;
};

class ConvKernel {
   public:
    static constexpr Signature signature = {"CodebookConv"};
    explicit ConvKernel(const Node& node);
    void run(Call& call) const;

   private:
    nodes::ConvForm form_;
    hc_weight_desc weight_;
};

// An id out of range gives NaN: it lies in the device's memory, where nobody looks before the kernel does.
class EmbeddingKernel {
   public:
    static constexpr Signature signature = {"CodebookEmbedding"};
    explicit EmbeddingKernel(const Node& node);
    void run(Call& call) const;

   private:
    hc_weight_desc weight_;
};

class HashedKernel {
   public:
    static constexpr Signature signature = {"HashedLinear"};
    explicit HashedKernel(const Node& node);
    void run(Call& call) const;

   private:
    hc_hashed_desc weight_;
};

using All = nodes::Kernels<LinearKernel, ConvKernel, EmbeddingKernel, HashedKernel>;

} // namespace hc::tvm::cuda
