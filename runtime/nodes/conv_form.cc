#include "nodes/conv_form.h"

#include "nodes/window.h"

namespace hc::nodes {

ConvForm::ConvForm(const Node& node)
    : spatial_(node.attributes("kernel_shape").size()), group_(node.attribute_or("group", int64_t{1})) {
    desc_.size = sizeof desc_;
    desc_.window = window_of(node);
    window_ = Window(desc_.window);
    const int64_t last = node.attribute_or("channels_last", int64_t{0});
    if (last < 0 || last > (HC_LAST_X | HC_LAST_Y))
        fail(HC_INVALID_ARGUMENT, "channels_last is %lld; wanted 0 to 3", static_cast<long long>(last));
    desc_.channels_last = static_cast<uint32_t>(last);
    const int64_t columns = node.attribute("in_features"), taps = static_cast<int64_t>(window_.taps());
    if (columns % taps)
        fail(HC_INVALID_ARGUMENT, "in_features is %lld; wanted kh * kw * C / group with a kernel of %zu x %zu",
             static_cast<long long>(columns), window_.taps_y, window_.taps_x);
    if (__builtin_mul_overflow(columns / taps, group_, &desc_.x.channels))
        fail(HC_INVALID_ARGUMENT, "in_features * group overflows");
}

ConvForm::Images ConvForm::of(const Tensor& x, int64_t rows) const {
    const size_t rank = spatial_ + 2, channels = desc_.channels_last & HC_LAST_X ? rank - 1 : 1;
    if (x.dims.size() != rank || x.dims[channels] != desc_.x.channels) {
        const std::string space = spatial_ == 2 ? "H, W" : "L", width = std::to_string(desc_.x.channels);
        fail(HC_INVALID_ARGUMENT, "X has shape %s; wanted (B, %s)", text_of(x.dims).c_str(),
             (channels == 1 ? width + ", " + space : space + ", " + width).c_str());
    }
    Images images{desc_, {}, x.dims};
    std::vector<int64_t>& dims = images.dims;
    dims.erase(dims.begin() + static_cast<ptrdiff_t>(channels));
    images.desc.x.batch = dims[0];
    images.desc.x.height = spatial_ == 2 ? dims[1] : 1;
    images.desc.x.width = dims.back();
    images.out = window_.output(Shape(images.desc.x), static_cast<size_t>(rows));
    if (spatial_ == 2) dims[1] = static_cast<int64_t>(images.out.height);
    dims.back() = static_cast<int64_t>(images.out.width);
    dims.insert(desc_.channels_last & HC_LAST_Y ? dims.end() : dims.begin() + 1, rows);
    return images;
}

} // namespace hc::nodes
