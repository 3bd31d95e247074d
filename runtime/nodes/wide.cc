#include "nodes/wide.h"

#include "nodes/kernels.h"

namespace hc::nodes {
namespace {

hc_wide_desc dense(const Node& node) {
    const Tensor weight = node.constant(1, "values", kFloat, kRequired);
    if (weight.dims.size() != 2)
        fail(HC_INVALID_ARGUMENT, "values have shape %s; wanted (N, K)", text_of(weight.dims).c_str());
    hc_wide_desc desc{};
    desc.weight = weight.floats();
    desc.weight_len = weight.count();
    return desc;
}

hc_wide_desc coded(const Node& node) {
    const Tensor codes = node.constant(1, "codes", kUint8, kRequired);
    const Tensor table = node.constant(2, "codebook", kFloat, kRequired);
    const Tensor scale = node.constant(3, "scale", kFloat, kRequired);
    hc_wide_desc desc{};
    desc.code_bits = node.attribute("code_bits");
    desc.codes = static_cast<const uint8_t*>(codes.data);
    desc.codes_len = codes.count();
    desc.table = table.floats();
    desc.table_len = table.count();
    desc.scale = scale.floats();
    desc.scale_len = scale.count();
    if (!desc.code_bits) fail(HC_INVALID_ARGUMENT, "code_bits is 0; wanted 1, 2, 4 or 8");
    return desc;
}

} // namespace

OpenWide::OpenWide(const Node& node, hc_wide_desc desc, size_t first) {
    const Tensor planes = node.constant(first, "planes", kFloat, kRequired);
    const Tensor start = node.constant(first + 1, "start", kFloat, kRequired);
    const Tensor sketches = node.constant(first + 2, "sketches", kUint8, kRequired);
    const Tensor limit = node.constant(first + 3, "limit", kUint8, kRequired);
    const Tensor bias = node.constant(first + 4, "bias", kFloat, kOptional);
    if (planes.dims.size() != 2)
        fail(HC_INVALID_ARGUMENT, "planes have shape %s; wanted (K, bits)", text_of(planes.dims).c_str());
    desc.size = sizeof desc;
    desc.rows = rows_ = static_cast<int64_t>(limit.count());
    desc.columns = columns_ = planes.dims[0];
    desc.bits = static_cast<int64_t>(start.count());
    const std::vector<int64_t> wanted = {desc.bits / 8, desc.rows};
    if (sketches.dims != wanted)
        fail(HC_INVALID_ARGUMENT, "sketches have shape %s; wanted %s", text_of(sketches.dims).c_str(),
             text_of(wanted).c_str());
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

void OpenWide::run(Call& call) const {
    const Tensor x = call.input(0);
    const Rows rows(x, columns_, rows_);
    float* y = static_cast<float*>(call.output(rows.dims));
    const hc_exec exec = call.exec();
    hc_error error{};
    check(hc_wide_linear(wide_.get(), x.floats(), rows.count, y, &exec, &error), error);
}

WideKernel::WideKernel(const Node& node) : wide_(node, dense(node), 2) {}

WideCodebookKernel::WideCodebookKernel(const Node& node) : wide_(node, coded(node), 4) {}

} // namespace hc::nodes
