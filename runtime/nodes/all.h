// Every kernel that a file may name.
#pragma once

#include "nodes/attention.h"
#include "nodes/chain.h"
#include "nodes/feed_forward.h"
#include "nodes/hashed.h"
#include "nodes/kernel_list.h"
#include "nodes/kernels.h"
#include "nodes/matmul.h"
#include "nodes/norm.h"
#include "nodes/pool.h"
#include "nodes/softmax.h"
#include "nodes/wide.h"

namespace hc::nodes {

using All = Kernels<LinearKernel, ConvKernel, EmbeddingKernel, ChainKernel, AttentionKernel, NormKernel,
                    FeedForwardKernel, WideKernel, WideCodebookKernel, HashedKernel, PoolKernel,
                    ActivationKernel, SoftmaxKernel, MatMulKernel>;

} // namespace hc::nodes
