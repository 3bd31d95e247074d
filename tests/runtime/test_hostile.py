"""Anything at all through the C ABI: a code and a sentence, never a crash."""

import ctypes
from contextlib import suppress
from ctypes import byref, c_void_p

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hashcompile_runtime import NativeError
from hashcompile_runtime._native import FLOAT, INT8
from tests.runtime import abi
from tests.runtime.oracle import activations, layer

INTEGERS = (-(2**63), -(2**31), -2, -1, 0, 1, 2, 3, 7, 16, 255, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1)
FLOATS = (float("nan"), float("inf"), float("-inf"), -1.0, 0.0, 1e-45, 3e38)
POINTERS = ("codes", "codebook", "scale", "bias")
many = settings(max_examples=300, deadline=None, derandomize=True)
LARGEST = 1 << 20  # values of an output that a test gives memory to


def scalars(structure):
    """Name -> what may be written there: the fields that are numbers."""
    found = {}
    for name, kind in structure._fields_:
        if issubclass(kind, ctypes._SimpleCData) and kind is not c_void_p:
            found[name] = FLOATS if kind is ctypes.c_float else INTEGERS
    return found


def anything(structure):
    """Fields and their new values, few at once: the more there are, the earlier all is refused."""
    fields = [(name, value) for name, values in scalars(structure).items() for value in values]
    return st.lists(st.sampled_from(fields), max_size=3).map(dict)


def put(structure, changes):
    for name, value in changes.items():
        setattr(structure, name, value)
    return structure


def weight_desc(**changes):
    """A good one but for `changes`. The arrays stay as long as they say, or are null."""
    of = layer(4, 40, 24)
    arrays = {name: getattr(of, name) for name in POINTERS}
    sizes = {f"{name}_len": array.size for name, array in arrays.items() if name != "codes"}
    desc = abi.WeightDesc(
        size=ctypes.sizeof(abi.WeightDesc),
        bits=4,
        compute=INT8,
        rows=40,
        columns=24,
        groups=1,
        codes_bytes=of.codes.nbytes,
        **sizes,
        **{name: abi.pointer(array) for name, array in arrays.items()},
    )
    desc.keep = arrays
    return put(desc, changes)


def open_and_close(desc):
    handle = c_void_p()
    code = abi.attempt("hc_weight_open", byref(desc), byref(handle))
    assert bool(handle) == (code == 0)
    abi.LIBRARY.hc_weight_close(handle)
    return code


def test_the_good_one_opens():
    assert open_and_close(weight_desc()) == 0


@pytest.mark.parametrize("name", [*scalars(abi.WeightDesc), *POINTERS])
def test_every_field_of_a_weight(name):
    values = [None] if name in POINTERS else scalars(abi.WeightDesc)[name]
    codes = [open_and_close(weight_desc(**{name: value})) for value in values]
    assert any(codes) == (name != "bias")


@many
@given(anything(abi.WeightDesc), st.sets(st.sampled_from(POINTERS)))
def test_several_fields_of_a_weight(changes, missing):
    missing = missing | {name.removesuffix("_len") for name in changes if name.endswith("_len")}
    open_and_close(weight_desc(**changes, **dict.fromkeys(missing)))


def test_nothing_at_all():
    handle, nothing = c_void_p(), None
    for function, arguments in {
        "hc_weight_open": [(nothing, byref(handle)), (byref(weight_desc()), nothing)],
        "hc_linear": [(nothing, nothing, 1, nothing, nothing, nothing)],
        "hc_conv2d_output": [(nothing, nothing, nothing)],
        "hc_conv2d": [(nothing, nothing, nothing, nothing, nothing, nothing)],
        "hc_embedding": [(nothing, nothing, 1, nothing, nothing)],
        "hc_decode": [(nothing, nothing)],
        "hc_chain_open": [(nothing, byref(handle)), (byref(abi.ChainDesc()), nothing)],
        "hc_chain_shapes": [(nothing, nothing, nothing)],
        "hc_chain_run": [(nothing, nothing, nothing, nothing, nothing)],
    }.items():
        for given_these in arguments:
            assert abi.attempt(function, *given_these) == 1
    abi.LIBRARY.hc_weight_close(None)
    abi.LIBRARY.hc_chain_close(None)


@pytest.mark.parametrize("m", [1, 2**31, 2**59, 2**62, 2**64 - 1])
def test_rows_without_memory(m):
    weight = layer(4, 40, 24).weight()
    assert abi.attempt("hc_linear", weight._handle, None, m, None, None, None) == 1
    assert abi.attempt("hc_embedding", weight._handle, None, m, None, None) == 1


def test_sizes_of_codes():
    for bits in (0, 1, 4, 8, 9, 2**32 - 1):
        for rows in INTEGERS:
            for columns in INTEGERS:
                got = abi.LIBRARY.hc_codes_bytes(bits, rows, columns)
                exact = 0
                if 1 <= bits <= 8 and rows >= 0 and columns >= 0:
                    period = 32 // (bits & -bits)
                    exact = -(-rows // 32) * -(-columns // period) * period * bits // 32 * 128
                assert got == (exact if exact < 2**63 else 0)


@pytest.mark.parametrize("field", scalars(abi.Epilogue))
def test_every_field_of_an_epilogue(field):
    weight, x, y = layer(4, 40, 24).weight(), activations(3, 24), np.zeros((3, 40), np.float32)
    for value in scalars(abi.Epilogue)[field]:
        epilogue = abi.Epilogue(ctypes.sizeof(abi.Epilogue), 2, -1, 1, None)
        arguments = abi.pointer(x), 3, abi.pointer(y), byref(put(epilogue, {field: value})), None
        code = abi.attempt("hc_linear", weight._handle, *arguments)
        assert code == 1 or field != "size"


def convolve(weight, desc):
    """With memory where the sizes are small, else without."""
    x, height, width = desc.x, ctypes.c_int64(), ctypes.c_int64()
    if abi.attempt("hc_conv2d_output", byref(desc), byref(height), byref(width)):
        return abi.attempt("hc_conv2d", weight._handle, byref(desc), None, None, None, None)
    values = x.batch * x.channels * x.height * x.width
    made = x.batch * weight.shape[0] * height.value * width.value
    arrays = [np.zeros(n, np.float32) if 0 < n <= LARGEST else None for n in (values, made)]
    if made > LARGEST:
        arrays[0] = None
    return abi.attempt("hc_conv2d", weight._handle, byref(desc), *map(abi.pointer, arrays), None, None)


@pytest.mark.parametrize("compute", [0, 1])
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_every_field_of_a_convolution(compute, groups):
    weight = layer(4, 36, 9 * 6 // groups).weight(compute, groups=groups)
    window = {"kernel": (3, 3), "strides": (1, 1), "pads": (1, 1, 1, 1), "dilations": (1, 1)}
    assert convolve(weight, abi.conv_desc((2, 6, 5, 7), *window.values())) in (0, 1)
    for value in INTEGERS:
        for axis in range(4):
            shape = [2, 6, 5, 7]
            shape[axis] = value
            convolve(weight, abi.conv_desc(shape, (3, 3)))
        for name, good in window.items():
            for axis in range(len(good)):
                changed = [value if i == axis else one for i, one in enumerate(good)]
                convolve(weight, abi.conv_desc((2, 6, 5, 7), *(window | {name: changed}).values()))


def test_what_is_reserved_is_zero():
    weight = layer(4, 36, 54).weight()
    q = np.ones((1, 2, 9, 4), np.float32)
    for function, desc, tail, unknown in (
        ("hc_conv2d_output", abi.conv_desc((2, 6, 5, 7), (3, 3)), [None] * 2, {"channels_last": 4}),
        ("hc_conv2d", abi.conv_desc((0, 6, 5, 7), (3, 3)), [None] * 4, {"channels_last": 4}),
        ("hc_attention", abi.attention_desc(q[:0], q[:0], q[:0], None), [None] * 6, {"reserved": 1}),
    ):
        before = [weight._handle] if function == "hc_conv2d" else []
        assert abi.attempt(function, *before, byref(desc), *tail) == 0
        assert abi.attempt(function, *before, byref(put(desc, unknown)), *tail) == 1


CONV, MAX_POOL, AVERAGE_POOL, GLOBAL_AVERAGE, ADD, SUBSAMPLE = range(6)


class Parts:
    """Of a good chain."""

    def __init__(self):
        self.weight = layer(4, 8, 9 * 3).weight(INT8)
        three = abi.window((3, 3), pads=(1, 1, 1, 1))
        self.steps = [
            abi.step(CONV, 0, 1, weight=self.weight, window=three),
            abi.step(MAX_POOL, 1, 2, window=three),
            abi.step(AVERAGE_POOL, 1, 3, window=three),
            abi.step(ADD, 2, 4, other=3),
            abi.step(GLOBAL_AVERAGE, 4, 5),
            abi.step(SUBSAMPLE, 4, 6, window=abi.window(strides=(2, 3)), channels_before=1, channels_after=2),
        ]
        self.tensors = [(0.05, 100)] * 7
        self.outputs = [5, 4, 6]

    def open(self, inputs=1):
        return abi.Chain(inputs, self.steps, self.tensors, self.outputs)

    def run(self, shape=(2, 3, 6, 5)):
        """Refused, or run: nothing else."""
        with suppress(NativeError):
            chain = self.open()
            shapes = chain.shapes(shape)
            if all(np.prod(s, dtype=float) <= LARGEST for s in (*shapes, shape)):
                chain.run([activations(*shape)], [np.zeros(s, np.float32) for s in shapes])


def test_the_good_chain_runs():
    parts = Parts()
    chain = parts.open()
    shapes = chain.shapes((2, 3, 6, 5))
    assert shapes == [(2, 8, 1, 1), (2, 8, 6, 5), (2, 11, 3, 2)]
    chain.run([activations(2, 3, 6, 5)], [np.zeros(shape, np.float32) for shape in shapes])


@pytest.mark.parametrize("which", range(6))
@pytest.mark.parametrize("field", [*scalars(abi.Step), "weight"])
def test_every_field_of_a_step(which, field):
    for value in scalars(abi.Step).get(field, [None]):
        parts = Parts()
        setattr(parts.steps[which], field, value)
        parts.run()


@pytest.mark.parametrize("which", [0, 1, 2, 5])
def test_every_field_of_a_window_of_a_step(which):
    for value in INTEGERS:
        for name, length in {"kernel": 2, "strides": 2, "dilations": 2, "pads": 4}.items():
            for axis in range(length):
                parts = Parts()
                getattr(parts.steps[which].window, name)[axis] = value
                parts.run()


@many
@given(st.lists(st.tuples(st.integers(0, 5), anything(abi.Step)), max_size=3))
def test_several_fields_of_steps(changes):
    parts = Parts()
    for which, fields in changes:
        put(parts.steps[which], fields)
    parts.run()


@many
@given(
    st.sampled_from((CONV, MAX_POOL, AVERAGE_POOL, SUBSAMPLE)),
    *(st.tuples(*[st.integers(low, 6)] * count) for low, count in ((1, 2), (1, 2), (0, 4), (1, 2))),
    st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 9), st.integers(0, 9)),
)
def test_windows_and_shapes(kind, kernel, strides, pads, dilations, shape):
    """Of those that are refused none is run, and those that are not run well: also where a window sees no pixel."""
    parts = Parts()
    weight = layer(4, 8, kernel[0] * kernel[1] * 3).weight(INT8)
    of_window = abi.window(kernel, strides, pads, dilations)
    parts.steps = [abi.step(kind, 0, 1, weight=weight if kind == CONV else None, window=of_window)]
    parts.tensors, parts.outputs = parts.tensors[:2], [1]
    parts.run(shape)


@pytest.mark.parametrize(("scale", "zero"), [(f, z) for f in FLOATS for z in (-1, 0, 255, 256, 2**31 - 1)])
def test_every_scale_and_zero(scale, zero):
    for which in range(7):
        parts = Parts()
        parts.tensors[which] = (scale, zero)
        parts.run()


@pytest.mark.parametrize("field", [name for name, _ in abi.ChainDesc._fields_])
def test_every_field_of_a_chain(field):
    parts = Parts()
    tensors, steps = (abi.Quant * 7)(*parts.tensors), (abi.Step * 6)(*parts.steps)
    outputs = (ctypes.c_int32 * 3)(*parts.outputs)
    lengths = {"tensor_count": 7, "step_count": 6, "output_count": 3}
    too_long = [value for value in INTEGERS if value % 2**64 > lengths.get(field, 0)]
    values = scalars(abi.ChainDesc).get(field, [None])
    for value in values:
        if field == "output_count" and value in too_long:
            continue  # no library can know
        desc = abi.ChainDesc(ctypes.sizeof(abi.ChainDesc), 1, tensors, 7, steps, 6, outputs, 3)
        handle = c_void_p()
        code = abi.attempt("hc_chain_open", byref(put(desc, {field: value})), byref(handle))
        assert bool(handle) == (code == 0)
        abi.LIBRARY.hc_chain_close(handle)


@pytest.mark.parametrize("axis", range(4))
def test_every_shape_of_an_input(axis):
    for value in INTEGERS:
        shape = [2, 3, 6, 5]
        shape[axis] = value
        with suppress(NativeError):
            Parts().open().shapes(shape)


@pytest.mark.parametrize(
    ("change", "shape", "message"),
    [
        ({"outputs": [5, 4, 5]}, None, "output 2 is tensor 5, as one before it"),
        *(
            (
                {"steps": [abi.step(SUBSAMPLE, 0, 1, window=window)]},
                None,
                "step 0: a subsampling has no window",
            )
            for window in (
                abi.window((1, 2)),
                abi.window((2, 1)),
                *(abi.window(pads=row) for row in np.eye(4, dtype=int)),
            )
        ),
        *(
            (
                {"steps": [abi.step(SUBSAMPLE, 0, 1, **{name: value})]},
                None,
                f"step 0: {value} channels of zeros",
            )
            for name in ("channels_before", "channels_after")
            for value in (-1, 2**31)
        ),
        (
            {"steps": [abi.step(MAX_POOL, 0, 1, window=abi.window((2, 2), pads=(1, 1, 1, 1)))]},
            (2, 3, 0, 5),
            "step 0: a window of the pooling lies in the padding alone",
        ),
        ({"steps": [abi.step(GLOBAL_AVERAGE, 0, 1)]}, (1, 1, 2902, 2902), "at most 8421504 can be summed"),
        (
            {"steps": [abi.step(AVERAGE_POOL, 0, 1, window=abi.window((2902, 2902)))]},
            None,
            "step 0: a mean of 8421604 values; at most 8421504 can be summed",
        ),
        (
            {"steps": [abi.step(MAX_POOL, 0, 1, window=abi.window((1, 2), (1, 1), (0, 5, 0, 1), (1, 5)))]},
            (1, 3, 3, 3),
            "step 0: a window of the pooling lies in the padding alone",
        ),
    ],
)
def test_chains_that_cannot_be_computed(change, shape, message):
    parts = Parts()
    for name, value in change.items():
        setattr(parts, name, value)
    if "steps" in change:
        parts.tensors, parts.outputs = parts.tensors[:2], [1]
    with pytest.raises(NativeError, match=message):
        parts.open().shapes(shape)


def test_a_chain_without_memory():
    chain = Parts().open()
    shape = (abi.Shape * 1)(abi.Shape(2, 3, 6, 5))
    x, y = activations(2, 3, 6, 5), np.zeros((2, 8, 6, 5), np.float32)
    at = [x.ctypes.data], [y.ctypes.data] * 3
    without = [[None if i == missing else at[1][i] for i in range(3)] for missing in range(3)]
    for inputs, outputs in ([None], at[1]), *((at[0], these) for these in without):
        pointers = [(c_void_p * len(some))(*some) for some in (inputs, outputs)]
        assert abi.attempt("hc_chain_run", chain.handle, shape, *pointers, None) == 1


def test_a_chain_of_no_images():
    """However many: nothing is kept for each."""
    chain = abi.Chain(1, [abi.step(ADD, 0, 1, other=0)], [(0.05, 100)] * 2, [1])
    for shape in ((0, 3, 6, 5), (2**31 - 1, 3, 6, 0)):
        nothing = np.zeros(shape, np.float32)
        chain.run([nothing], [nothing])


@pytest.mark.parametrize(("runs", "message"), [(0, "the host ran 0 of"), (1, "the host ran 1 of")])
def test_a_host_that_leaves_tasks_out(runs, message):
    """Such as ONNX Runtime's pool, where it reports an error."""
    weight = layer(4, 1000, 500).weight()
    x, y = activations(70, 500), np.zeros((70, 1000), np.float32)
    host = abi.ParallelFor(lambda _host, task, arg, count: [task(arg, i) for i in range(runs)] and None)
    tail = abi.pointer(x), 70, abi.pointer(y), None, byref(abi.Exec(None, host))
    with pytest.raises(NativeError, match=message):
        abi.call("hc_linear", weight._handle, *tail)


@many
@given(changes=anything(abi.AttentionDesc))
@example(changes={"key_size": 2**62, "value_size": 0})
@example(changes={"keys": 2**62, "key_size": 0})
@example(changes={"heads": 0, "kv_heads": 0})
def test_attention(changes):
    """Steps of 0, so that a few features are all the memory that is read."""
    none = (
        np.zeros((2, 4, 9, 8), np.float32),
        np.zeros((2, 2, 11, 8), np.float32),
        np.zeros((2, 2, 11, 5), np.float32),
    )
    desc = put(abi.attention_desc(*none, None, compute=INT8, scale=0.3), changes)
    desc.q_steps[:] = desc.k_steps[:] = desc.v_steps[:] = [0, 0, 0]
    rows = max(desc.batch, 0) * max(desc.queries, 0) * max(desc.heads, 0)
    features = max(desc.key_size, 0) + max(desc.value_size, 0)
    most = max(rows, 1) * max(features, 1) * max(desc.keys, 1)
    some = most <= LARGEST  # otherwise it gets no memory, and must see that
    q, k, v, y = (np.ones(size if some else 0, np.float32) for size in (*[features] * 3, rows * features))
    pointers = [abi.pointer(array if some else None) for array in (q, k, v, y)]
    mask = abi.pointer(np.full(4, 1, np.uint8).view(np.float32))  # true, or next to nothing
    code = abi.attempt("hc_attention", byref(desc), *pointers[:3], mask, pointers[3], None)
    if code == 0 and some and abs(desc.scale) < 1e9:  # scores that are finite
        wanted = 1 if desc.keys else 0
        np.testing.assert_allclose(y[: rows * desc.value_size], wanted, rtol=1e-6)


@pytest.mark.parametrize("missing", range(5))
@pytest.mark.parametrize("compute", [FLOAT, INT8])
def test_an_attention_without_memory(missing, compute):
    q, k, v, mask = (np.ones(shape, np.float32) for shape in [(1, 2, 9, 4)] * 3 + [(9, 9)])
    arrays = [q, k, v, mask, np.ones((1, 9, 8), np.float32)]
    pointers = [abi.pointer(array if i != missing else None) for i, array in enumerate(arrays)]
    desc = abi.attention_desc(q, k, v, mask, compute=compute, scale=0.3)
    assert abi.attempt("hc_attention", byref(desc), *pointers, None) == 1
