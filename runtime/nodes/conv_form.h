// A convolution as the attributes of its node describe it, for the kernels of any device: those of a window; group,
// in_features, and channels_last, which tells what of X and Y has its channels as the last dim: HC_LAST_X, HC_LAST_Y.
#pragma once

#include "hashcompile.h"
#include "nodes/host.h"
#include "ops/window.h"

namespace hc::nodes {

class ConvForm {
   public:
    explicit ConvForm(const Node& node);

    int64_t group() const { return group_; }

    struct Images {
        hc_conv_desc desc; // with the shape of X
        Shape out;
        std::vector<int64_t> dims; // of Y
    };
    // X (B, C, H, W) or (B, C, L), by a weight of so many rows. Fails where X has another shape, or the window does not fit.
    Images of(const Tensor& x, int64_t rows) const;

   private:
    size_t spatial_; // 1 or 2 dimensions
    int64_t group_;
    hc_conv_desc desc_{};
    Window window_;
};

} // namespace hc::nodes
