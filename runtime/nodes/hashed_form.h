// A hashed weight as the constant inputs and the attributes of a HashedLinear describe it, for the kernels of any device.
#pragma once

#include "hashcompile.h"
#include "nodes/host.h"

namespace hc::nodes {

// Its arrays stay where the node has them.
hc_hashed_desc described(const Node& node);

} // namespace hc::nodes
