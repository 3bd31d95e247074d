#include "nodes/pool.h"

#include "nodes/weight.h"
#include "nodes/window.h"

namespace hc::nodes {

PoolKernel::PoolKernel(const Node& node) : global_(node.attribute_or("global", int64_t{0}) != 0) {
    desc_.size = sizeof desc_;
    desc_.kind = node.attribute("average") ? HC_POOL_AVERAGE : HC_POOL_MAX;
    desc_.counts_padding = node.attribute_or("counts_padding", int64_t{0}) != 0;
    desc_.window = global_ ? hc_window{{1, 1}, {1, 1}, {1, 1}, {0, 0, 0, 0}} : window_of(node);
}

void PoolKernel::run(Call& call) const {
    const Tensor x = call.input(0);
    if (x.dims.size() != 4)
        fail(HC_INVALID_ARGUMENT, "X has shape %s; wanted (B, H, W, C)", text_of(x.dims).c_str());
    hc_pool_desc desc = desc_;
    desc.x = {x.dims[0], x.dims[3], x.dims[1], x.dims[2]};
    if (global_) {
        desc.window.kernel[0] = desc.x.height;
        desc.window.kernel[1] = desc.x.width;
    }
    hc_conv_desc of_window{sizeof of_window, 0, desc.x, desc.window};
    hc_error error{};
    int64_t height = 0, width = 0;
    check(hc_conv2d_output(&of_window, &height, &width, &error), error);
    float* y = static_cast<float*>(call.output({desc.x.batch, height, width, desc.x.channels}));
    const hc_exec exec = call.exec();
    check(hc_pool(&desc, x.floats(), y, &exec, &error), error);
}

} // namespace hc::nodes
