#include "nodes/weight_form.h"

namespace hc::nodes {
namespace {

// The layout is in the shape of the codes, so a file made for another one is refused here.
void check_codes(const Tensor& codes, uint32_t bits, int64_t rows, int64_t columns) {
    const int64_t period = 32 / static_cast<int64_t>(bits & -bits);
    const std::vector<int64_t> wanted = {(rows + 31) / 32,
                                         columns / period + (columns % period != 0),
                                         period * static_cast<int64_t>(bits) / 32,
                                         2,
                                         16,
                                         4};
    if (codes.dims != wanted)
        fail(HC_INVALID_ARGUMENT, "codes have shape %s; %u bits, %lld x %lld need %s", text_of(codes.dims).c_str(),
             bits, static_cast<long long>(rows), static_cast<long long>(columns), text_of(wanted).c_str());
}

} // namespace

WeightForm WeightForm::of(const Node& node, int64_t compute, int64_t groups, const std::string& ending) {
    const auto number = [&](const char* name) { return node.attribute((name + ending).c_str()); };
    return {number("bits"), number("in_features"), number("group_rows"), groups, compute};
}

hc_weight_desc described(const Node& node, size_t first, const WeightForm& form, bool has_bias) {
    const Tensor codes = node.constant(first, "codes", kUint8, kRequired);
    const Tensor codebook = node.constant(first + 1, "codebook", kFloat, kRequired);
    const Tensor scale = node.constant(first + 2, "scale", kFloat, kRequired);
    const Tensor bias = has_bias ? node.constant(first + 3, "bias", kFloat, kOptional) : Tensor{};
    if (scale.dims.size() != 1)
        fail(HC_INVALID_ARGUMENT, "scale has shape %s; wanted (N)", text_of(scale.dims).c_str());
    if (codebook.dims.size() != 2)
        fail(HC_INVALID_ARGUMENT, "codebook has shape %s; wanted (groups, 2^bits)", text_of(codebook.dims).c_str());
    if (form.bits < 1 || (form.bits > 8 && form.bits != 32))
        fail(HC_INVALID_ARGUMENT, "bits is %lld; an index has 1 to 8, a value 32", static_cast<long long>(form.bits));
    if (form.compute < HC_FLOAT || form.compute > HC_BF16)
        fail(HC_INVALID_ARGUMENT, "compute is %lld; 0 is float, 1 is int8, 2 is bf16",
             static_cast<long long>(form.compute));

    hc_weight_desc desc{};
    desc.size = sizeof desc;
    desc.bits = static_cast<uint32_t>(form.bits);
    desc.compute = static_cast<uint32_t>(form.compute);
    desc.rows = scale.dims[0];
    desc.columns = form.columns;
    desc.group_rows = form.group_rows;
    desc.groups = form.groups;
    if (desc.columns < 0) fail(HC_INVALID_ARGUMENT, "in_features is negative");
    check_codes(codes, desc.bits, desc.rows, desc.columns);
    desc.codes = static_cast<const uint8_t*>(codes.data);
    desc.codes_bytes = codes.count();
    desc.codebook = codebook.floats();
    desc.codebook_len = codebook.count();
    desc.scale = scale.floats();
    desc.scale_len = scale.count();
    desc.bias = bias.floats();
    desc.bias_len = bias.data ? bias.count() : 0;
    return desc;
}

} // namespace hc::nodes
