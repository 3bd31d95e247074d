#include "nodes/feed_forward.h"

namespace hc::nodes {
namespace {

constexpr size_t kUp = 1, kDown = 5; // the inputs that hold codes
constexpr size_t kResidual = 9, kNoResidual = SIZE_MAX;
constexpr const char* kSecond = "_2";

} // namespace

FeedForwardKernel::FeedForwardKernel(const Node& node)
    : up_(open_weight(node, kUp, WeightForm::of(node, node.attribute("compute"), 1), true)),
      down_(open_weight(node, kDown, WeightForm::of(node, node.attribute("compute"), 1, kSecond), true)),
      between_(node, kNoResidual),
      after_(node, kResidual, kSecond) {
    if (down_.columns != up_.rows)
        fail(HC_INVALID_ARGUMENT, "in_features_2 is %lld; the first layer makes %lld",
             static_cast<long long>(down_.columns), static_cast<long long>(up_.rows));
}

void FeedForwardKernel::run(Call& call) const {
    const Tensor x = call.input(0);
    const Rows rows(x, up_.columns, down_.rows);
    float* y = static_cast<float*>(call.output(rows.dims));
    const hc_epilogue between = between_.of(call, {}), after = after_.of(call, rows.dims);
    const hc_exec exec = call.exec();
    hc_error error{};
    check(hc_feed_forward(up_.weight.get(), down_.weight.get(), x.floats(), rows.count, y, &between, &after, &exec,
                          &error),
          error);
}

} // namespace hc::nodes
