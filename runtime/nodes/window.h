// The window of a convolution or a pool from the attributes of its node.
#pragma once

#include "hashcompile.h"
#include "nodes/host.h"

namespace hc::nodes {

// Attributes kernel_shape, strides and dilations (1 or 2 values), pads (twice as many: all in front, then all behind). A 1-D
// window is the last row of a 2-D one.
hc_window window_of(const Node& node);

} // namespace hc::nodes
