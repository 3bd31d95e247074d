#pragma once

namespace hc::nodes {

// The kernels that a file may name, on one kind of device.
template <class... Kernel>
struct Kernels {};

} // namespace hc::nodes
