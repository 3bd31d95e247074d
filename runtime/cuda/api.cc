// The C ABI: everything is checked here, before a kernel sees it.
#include <limits.h>

#include <string>

#include "cuda/problem.h"
#include "kernels/layout.h"
#include "ops/window.h"

namespace hc::cuda {
namespace {

constexpr size_t kMost = INT_MAX / 2;     // of any size: kernels count in ints, and a little beyond the end
constexpr size_t kWeightsPerValue = 4096; // of a hashed weight, at most, as in hashcompile.h

int size_in(const char* what, int64_t value, int64_t least) {
    if (value < least || value > static_cast<int64_t>(kMost))
        fail(HC_INVALID_ARGUMENT, "%s is %lld; wanted %lld to %zu", what, static_cast<long long>(value),
             static_cast<long long>(least), kMost);
    return static_cast<int>(value);
}

int fitting(const char* what, size_t value) {
    if (value > kMost) fail(HC_INVALID_ARGUMENT, "%s is %zu; wanted at most %zu", what, value, kMost);
    return static_cast<int>(value);
}

template <class Description>
const Description& of_this_version(const char* what, const Description* description) {
    if (!description || description->size != sizeof(Description))
        fail(HC_INVALID_ARGUMENT, "%s is null or of another version", what);
    return *description;
}

void check_pointer(const char* what, const void* pointer, size_t count, size_t alignment) {
    if (count && !pointer) fail(HC_INVALID_ARGUMENT, "%s is null", what);
    if (reinterpret_cast<uintptr_t>(pointer) % alignment)
        fail(HC_INVALID_ARGUMENT, "%s is not at a multiple of %zu bytes", what, alignment);
}

void check_floats(const char* what, const float* values, size_t got, size_t wanted) {
    if (got != wanted) fail(HC_INVALID_ARGUMENT, "%s has %zu values; wanted %zu", what, got, wanted);
    check_pointer(what, values, wanted, alignof(float));
}

size_t bytes_of(hc_cuda_dtype dtype) {
    size_t bytes = 0;
    with_type(dtype, [&](auto type) { bytes = sizeof type; });
    return bytes;
}

const hc_cuda_call& checked(const hc_cuda_call* given) {
    const hc_cuda_call& call = of_this_version("call", given);
    if (call.reserved) fail(HC_INVALID_ARGUMENT, "reserved is %u; wanted 0", call.reserved);
    bytes_of(call.dtype);
    if (call.path < HC_CUDA_AUTO || call.path > HC_CUDA_GEMM)
        fail(HC_INVALID_ARGUMENT, "path %d; wanted 0, 1 or 2", call.path);
    check_pointer("workspace", call.workspace, call.workspace_bytes, 16);
    return call;
}

const hc_cuda_codebook& checked(const hc_cuda_codebook* given) {
    const hc_cuda_codebook& w = of_this_version("weight", given);
    if (w.bits < 1 || w.bits > 8) fail(HC_INVALID_ARGUMENT, "bits is %u; wanted 1 to 8", w.bits);
    const size_t rows = static_cast<size_t>(size_in("rows", w.rows, 0));
    const size_t columns = static_cast<size_t>(size_in("columns", w.columns, 0));
    if (w.group_rows < 0 || w.group_rows % kTile)
        fail(HC_INVALID_ARGUMENT, "group_rows is %lld; wanted a multiple of %d",
             static_cast<long long>(w.group_rows), kTile);
    size_in("group_rows", w.group_rows, 0);
    const size_t period = 32 / (w.bits & (0u - w.bits)), lines = period * w.bits / 32;
    const size_t codes = product(product(ceil_div(rows, kPair), ceil_div(columns, period)), lines, kPairLine);
    if (w.codes_bytes != codes)
        fail(HC_INVALID_ARGUMENT, "codes have %zu bytes; %u bits, %zu x %zu need %zu", w.codes_bytes, w.bits, rows,
             columns, codes);
    check_pointer("codes", w.codes, codes, 16);
    const size_t tables = w.group_rows ? ceil_div(rows, static_cast<size_t>(w.group_rows)) : 1;
    check_floats("codebook", w.codebook, w.codebook_len, product(tables, size_t{1} << w.bits));
    check_floats("scale", w.scale, w.scale_len, rows);
    if (w.bias) check_floats("bias", w.bias, w.bias_len, rows);
    return w;
}

const hc_cuda_hashed& checked(const hc_cuda_hashed* given, int64_t side) {
    const hc_cuda_hashed& w = of_this_version("weight", given);
    if (w.seed > INT32_MAX) fail(HC_INVALID_ARGUMENT, "seed is %u; wanted less than 2^31", w.seed);
    const size_t rows = static_cast<size_t>(size_in("rows", w.rows, 0));
    const size_t columns = static_cast<size_t>(size_in("columns", w.columns, 0));
    if (w.side != kTile && (side == kTile || w.side != 1))
        fail(HC_INVALID_ARGUMENT, "side is %lld; wanted 16%s", static_cast<long long>(w.side),
             side == kTile ? "" : " or 1");
    const size_t tile = static_cast<size_t>(w.side * w.side);
    if (!w.values_len || w.values_len % tile || w.values_len / tile > kMost)
        fail(HC_INVALID_ARGUMENT, "values has %zu values; wanted whole tiles of %zu", w.values_len, tile);
    const size_t most = product(kWeightsPerValue, w.values_len);
    if (rows > most || columns > most || product(rows, columns) > most)
        fail(HC_INVALID_ARGUMENT, "%zu values for a weight of %zu x %zu", w.values_len, rows, columns);
    check_pointer("values", w.values, w.values_len, 16);
    if (w.scale) check_floats("scale", w.scale, w.scale_len, w.scale_len == 1 ? 1 : rows);
    if (w.bias) check_floats("bias", w.bias, w.bias_len, rows);
    return w;
}

// What a product of `m` rows by a weight has of its own; X and Y are dense rows.
template <class Weight>
Problem problem_of(const Weight& w, const hc_cuda_call& call, int m) {
    Problem p{};
    p.path = call.path;
    p.m = m;
    p.k = static_cast<int>(w.columns);
    p.rows = static_cast<int>(w.rows);
    p.groups = 1;
    p.linear = true;
    p.x_steps[0] = p.k;
    p.x_steps[1] = 1;
    p.y_steps[0] = p.rows;
    p.y_steps[1] = 1;
    p.channels = p.k;
    p.height = p.width = p.out_height = p.out_width = p.taps_x = 1;
    p.stride_y = p.stride_x = p.dilation_y = p.dilation_x = 1;
    p.x = call.x;
    p.y = call.y;
    p.scale = w.scale;
    p.scale_step = w.scale_len == 1 ? 0 : 1;
    p.bias = w.bias;
    p.workspace = static_cast<float*>(call.workspace);
    p.workspace_floats = call.workspace_bytes / sizeof(float);
    p.stream = call.stream;
    return p;
}

template <class Weight>
Problem linear_problem(const Weight& w, const hc_cuda_call& call, int64_t rows) {
    const int m = size_in("m", rows, 0);
    const size_t bytes = bytes_of(call.dtype), count = static_cast<size_t>(m);
    check_pointer("x", call.x, product(product(count, static_cast<size_t>(w.columns)), bytes), bytes);
    check_pointer("y", call.y, product(product(count, static_cast<size_t>(w.rows)), bytes), bytes);
    return problem_of(w, call, m);
}

// How far apart the first and the last number of an array lie, in bytes.
size_t extent(const char* what, const int64_t (&steps)[4], const Shape& shape, size_t bytes) {
    const size_t sizes[4] = {shape.batch, shape.channels, shape.height, shape.width};
    size_t whole = 0;
    for (int i = 0; i < 4; ++i) {
        if (steps[i] < 0) fail(HC_INVALID_ARGUMENT, "%s has the step %lld", what, static_cast<long long>(steps[i]));
        if (!sizes[i]) return 0;
        const size_t far = product(sizes[i] - 1, static_cast<size_t>(steps[i]), bytes);
        if (__builtin_add_overflow(whole, far, &whole) || whole > PTRDIFF_MAX)
            fail(HC_INVALID_ARGUMENT, "the steps of %s overflow", what);
    }
    return whole + bytes;
}

Problem conv_problem(const hc_cuda_codebook& w, const hc_cuda_call& call, const hc_cuda_conv& conv) {
    if (conv.reserved) fail(HC_INVALID_ARGUMENT, "reserved is %u; wanted 0", conv.reserved);
    if (call.path == HC_CUDA_GEMV) fail(HC_INVALID_ARGUMENT, "a convolution has tensor cores only");
    const Shape x(conv.x);
    const Window window(conv.window);
    const size_t rows = static_cast<size_t>(w.rows), groups = static_cast<size_t>(size_in("groups", conv.groups, 1));
    if (x.channels % groups || rows % groups)
        fail(HC_INVALID_ARGUMENT, "%zu channels and %zu rows in %zu groups", x.channels, rows, groups);
    const size_t wanted = product(x.channels / groups, window.taps_y, window.taps_x);
    if (wanted != static_cast<size_t>(w.columns))
        fail(HC_INVALID_ARGUMENT, "the weight has %lld columns; channels and window need %zu",
             static_cast<long long>(w.columns), wanted);
    const Shape out = window.output(x, rows);
    const size_t bytes = bytes_of(call.dtype);
    check_pointer("x", call.x, extent("x", conv.x_steps, x, bytes), bytes);
    check_pointer("y", call.y, extent("y", conv.y_steps, out, bytes), bytes);

    Problem p = problem_of(w, call, fitting("the number of windows", product(out.batch, out.height, out.width)));
    p.groups = static_cast<int>(groups);
    p.linear = false;
    for (int i = 0; i < 4; ++i) {
        p.x_steps[i] = conv.x_steps[i];
        p.y_steps[i] = conv.y_steps[i];
    }
    p.channels = fitting("channels", x.channels / groups);
    p.height = fitting("height", x.height);
    p.width = fitting("width", x.width);
    fitting("the padded height", x.height + window.top + window.bottom);
    fitting("the padded width", x.width + window.left + window.right);
    p.out_height = fitting("output height", out.height);
    p.out_width = fitting("output width", out.width);
    p.taps_x = fitting("kernel width", window.taps_x);
    p.stride_y = fitting("vertical stride", window.stride_y);
    p.stride_x = fitting("horizontal stride", window.stride_x);
    p.dilation_y = fitting("vertical dilation", window.dilation_y);
    p.dilation_x = fitting("horizontal dilation", window.dilation_x);
    p.top = fitting("top padding", window.top);
    p.left = fitting("left padding", window.left);
    return p;
}

template <class Weight>
Lookup lookup_of(const Weight& w, const hc_cuda_call& call, int64_t count) {
    const size_t ids = static_cast<size_t>(size_in("count", count, 0)), bytes = bytes_of(call.dtype);
    check_pointer("x", call.x, product(ids, sizeof(int64_t)), alignof(int64_t));
    check_pointer("y", call.y, product(ids, static_cast<size_t>(w.columns), bytes), bytes);
    return {static_cast<const int64_t*>(call.x), count, w.rows, static_cast<int>(w.columns), w.scale,
            w.scale_len == 1 ? 0 : 1, call.y, call.stream};
}

using ProductOf = void (*)(const hc_cuda_codebook&, hc_cuda_dtype, const Problem&);
using LookupOf = void (*)(const hc_cuda_codebook&, hc_cuda_dtype, const Lookup&);

constexpr ProductOf kProducts[] = {codebook_product<1>, codebook_product<2>, codebook_product<3>, codebook_product<4>,
                                   codebook_product<5>, codebook_product<6>, codebook_product<7>, codebook_product<8>};
constexpr LookupOf kLookups[] = {codebook_lookup<1>, codebook_lookup<2>, codebook_lookup<3>, codebook_lookup<4>,
                                 codebook_lookup<5>, codebook_lookup<6>, codebook_lookup<7>, codebook_lookup<8>};

// The kernel, unless this library was linked without it.
template <class Kernel>
Kernel linked(Kernel kernel, const std::string& weights) {
    if (!kernel) fail(HC_INVALID_ARGUMENT, "this library has no kernels for weights of %s", weights.c_str());
    return kernel;
}

template <class Kernel>
Kernel linked(const Kernel (&kernels)[8], uint32_t bits) {
    return linked(kernels[bits - 1], std::to_string(bits) + " bits");
}

} // namespace
} // namespace hc::cuda

extern "C" {

uint32_t hc_cuda_abi_version(void) { return HC_CUDA_ABI_VERSION; }

size_t hc_cuda_workspace(int64_t m, int64_t rows) {
    using namespace hc::cuda;
    size_t bytes = 0;
    if (m > 0 && rows > 0 && m <= static_cast<int64_t>(kSplitRows))
        hc::guarded(nullptr, [&] {
            bytes = hc::product(kMostParts * sizeof(float), static_cast<size_t>(m), static_cast<size_t>(rows));
        });
    return bytes;
}

hc_code hc_cuda_linear(const hc_cuda_codebook* weight, const hc_cuda_call* call, int64_t m, hc_error* error) {
    using namespace hc::cuda;
    return hc::guarded(error, [&] {
        const hc_cuda_codebook& w = checked(weight);
        const hc_cuda_call& c = checked(call);
        linked(kProducts, w.bits)(w, c.dtype, linear_problem(w, c, m));
    });
}

hc_code hc_cuda_conv2d(const hc_cuda_codebook* weight, const hc_cuda_call* call, const hc_cuda_conv* conv,
                       hc_error* error) {
    using namespace hc::cuda;
    return hc::guarded(error, [&] {
        const hc_cuda_codebook& w = checked(weight);
        const hc_cuda_call& c = checked(call);
        linked(kProducts, w.bits)(w, c.dtype, conv_problem(w, c, of_this_version("conv", conv)));
    });
}

hc_code hc_cuda_embedding(const hc_cuda_codebook* weight, const hc_cuda_call* call, int64_t count, hc_error* error) {
    using namespace hc::cuda;
    return hc::guarded(error, [&] {
        const hc_cuda_codebook& w = checked(weight);
        const hc_cuda_call& c = checked(call);
        linked(kLookups, w.bits)(w, c.dtype, lookup_of(w, c, count));
    });
}

hc_code hc_cuda_hashed_linear(const hc_cuda_hashed* weight, const hc_cuda_call* call, int64_t m, hc_error* error) {
    using namespace hc::cuda;
    return hc::guarded(error, [&] {
        const hc_cuda_hashed& w = checked(weight, hc::kTile);
        const hc_cuda_call& c = checked(call);
        linked(hashed_product, "hashes")(w, c.dtype, linear_problem(w, c, m));
    });
}

hc_code hc_cuda_hashed_embedding(const hc_cuda_hashed* weight, const hc_cuda_call* call, int64_t count,
                                 hc_error* error) {
    using namespace hc::cuda;
    return hc::guarded(error, [&] {
        const hc_cuda_hashed& w = checked(weight, 1);
        const hc_cuda_call& c = checked(call);
        linked(hashed_lookup, "hashes")(w, c.dtype, lookup_of(w, c, count));
    });
}
}
