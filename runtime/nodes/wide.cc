#include "nodes/wide.h"

#include "nodes/kernels.h"

namespace hc::nodes {

WideKernel::WideKernel(const Node& node) {
    const Tensor weight = node.constant(1, "values", kFloat, kRequired);
    const Tensor planes = node.constant(2, "planes", kFloat, kRequired);
    const Tensor start = node.constant(3, "start", kFloat, kRequired);
    const Tensor sketches = node.constant(4, "sketches", kUint8, kRequired);
    const Tensor limit = node.constant(5, "limit", kUint8, kRequired);
    const Tensor bias = node.constant(6, "bias", kFloat, kOptional);
    if (weight.dims.size() != 2)
        fail(HC_INVALID_ARGUMENT, "values have shape %s; wanted (N, K)", text_of(weight.dims).c_str());
    hc_wide_desc desc{};
    desc.size = sizeof desc;
    desc.rows = rows_ = weight.dims[0];
    desc.columns = columns_ = weight.dims[1];
    desc.bits = static_cast<int64_t>(start.count());
    const std::vector<int64_t> wanted = {desc.bits / 8, desc.rows};
    if (sketches.dims != wanted)
        fail(HC_INVALID_ARGUMENT, "sketches have shape %s; wanted %s", text_of(sketches.dims).c_str(),
             text_of(wanted).c_str());
    desc.weight = weight.floats();
    desc.weight_len = weight.count();
    desc.bias = bias.floats();
    desc.bias_len = bias.data ? bias.count() : 0;
    desc.planes = planes.floats();
    desc.planes_len = planes.count();
    desc.start = start.floats();
    desc.start_len = start.count();
    desc.sketches = static_cast<const uint8_t*>(sketches.data);
    desc.sketches_len = sketches.count();
    desc.limit = static_cast<const uint8_t*>(limit.data);
    desc.limit_len = limit.count();
    hc_wide* wide = nullptr;
    hc_error error{};
    check(hc_wide_open(&desc, &wide, &error), error);
    wide_.reset(wide);
}

void WideKernel::run(Call& call) const {
    const Tensor x = call.input(0);
    const Rows rows(x, columns_, rows_);
    float* y = static_cast<float*>(call.output(rows.dims));
    const hc_exec exec = call.exec();
    hc_error error{};
    check(hc_wide_linear(wide_.get(), x.floats(), rows.count, y, &exec, &error), error);
}

} // namespace hc::nodes
