#include "nodes/window.h"

namespace hc::nodes {
namespace {

// Two values from an attribute of `spatial`.
void spread(const Node& node, const char* name, size_t spatial, int64_t (&to)[2]) {
    const std::vector<int64_t> values = node.attributes(name);
    if (values.size() != spatial)
        fail(HC_INVALID_ARGUMENT, "%s has %zu values; kernel_shape has %zu", name, values.size(), spatial);
    to[0] = spatial == 2 ? values[0] : 1;
    to[1] = values[spatial - 1];
}

} // namespace

hc_window window_of(const Node& node) {
    const size_t spatial = node.attributes("kernel_shape").size();
    if (spatial != 1 && spatial != 2)
        fail(HC_INVALID_ARGUMENT, "kernel_shape has %zu values; wanted 1 or 2", spatial);
    hc_window window{};
    spread(node, "kernel_shape", spatial, window.kernel);
    spread(node, "strides", spatial, window.strides);
    spread(node, "dilations", spatial, window.dilations);
    const std::vector<int64_t> pads = node.attributes("pads");
    if (pads.size() != 2 * spatial)
        fail(HC_INVALID_ARGUMENT, "pads has %zu values; wanted %zu", pads.size(), 2 * spatial);
    for (size_t end = 0; end < 2; ++end) {
        window.pads[2 * end] = spatial == 2 ? pads[end * spatial] : 0;
        window.pads[2 * end + 1] = pads[end * spatial + spatial - 1];
    }
    return window;
}

} // namespace hc::nodes
