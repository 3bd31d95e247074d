"""Chains of int8 convolutions as nodes of ONNX Runtime, against the same steps in numpy."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

from hashcompile_runtime import ModelError, session
from tests.oracle import FIELDS
from tests.runtime import chain_oracle
from tests.runtime.chain_oracle import Activation, Kind
from tests.runtime.oracle import activations, layer

RELU, CLIP = Activation.RELU, Activation.CLIP
UNSET = {"kernel_h": 1, "kernel_w": 1, "stride_h": 1, "stride_w": 1, "dilation_h": 1, "dilation_w": 1}


class Chain:
    """Steps added one by one; `attributes` and `constants` of the node."""

    def __init__(self, inputs=1, dynamic=False):
        self.inputs = inputs
        self.dynamic = dynamic
        self.steps, self.bounds, self.constants = [], [], []
        self.tensors = [self.quant(0.03, 128)] * inputs
        self.outputs = None

    def quant(self, scale, zero):
        return (0.0, 0.0) if self.dynamic else (scale, float(zero))

    def add(self, kind, x, *, quant=(0.05, 100), low=0.0, high=0.0, **fields):
        """Returns the number of the step's tensor."""
        step = {**UNSET, **fields, "kind": kind, "input": x, "output": len(self.tensors)}
        self.steps.append([int(step.get(name, -1 if name in ("other", "weight") else 0)) for name in FIELDS])
        self.bounds.append((low, high))
        self.tensors.append(self.quant(*quant))
        return len(self.tensors) - 1

    def conv(self, x, channels, filters, kernel=(1, 1), *, bits=4, groups=1, group_rows=0, pad=0, **fields):
        columns = kernel[0] * kernel[1] * channels // groups
        of = layer(bits, filters, columns, group_rows=group_rows, seed=len(self.steps))
        self.constants += [of.codes, of.codebook, of.scale * np.float32(0.2), of.bias]
        fields = {"top": pad, "left": pad, "bottom": pad, "right": pad} | fields
        return self.add(
            Kind.CONV,
            x,
            weight=len(self.constants) // 4 - 1,
            kernel_h=kernel[0],
            kernel_w=kernel[1],
            groups=groups,
            bits=bits,
            group_rows=group_rows,
            in_features=columns,
            **fields,
        )

    @property
    def attributes(self):
        return {
            "activations": self.inputs,
            "tensors": [float(np.float32(value)) for quant in self.tensors for value in quant],
            "outputs": self.outputs or [len(self.tensors) - 1],
            "steps": [value for step in self.steps for value in step],
            "bounds": [float(np.float32(value)) for bounds in self.bounds for value in bounds],
        }

    def model(self, rank=4, kind=TensorProto.FLOAT, **changes):
        attributes = self.attributes | changes
        names = [f"c{i}" for i in range(len(self.constants))]
        xs = [f"X{i}" for i in range(self.inputs)]
        ys = [f"Y{i}" for i in range(len(attributes["outputs"]))]
        node = helper.make_node("Chain", [*xs, *names], ys, name="the_chain", domain="com.hashcompile")
        node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
        graph = helper.make_graph(
            [node],
            "one",
            [helper.make_tensor_value_info(x, kind, [None] * rank) for x in xs],
            [helper.make_tensor_value_info(y, TensorProto.FLOAT, None) for y in ys],
            [numpy_helper.from_array(c, name) for c, name in zip(self.constants, names, strict=True)],
        )
        opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.hashcompile", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


def run(chain, *inputs, threads=2):
    opened = session(chain.model(inputs[0].ndim), threads=threads)
    return opened.run(None, {f"X{i}": x for i, x in enumerate(inputs)})


def check(chain, *inputs, steps=0.0):
    """Equal to the bit; `steps`: how many levels of 8 bits an output may be off where activations are not exact."""
    wanted = chain_oracle.run(chain.attributes, [*inputs, *chain.constants])
    for y, reference in zip(run(chain, *inputs), wanted, strict=True):
        if steps:
            assert np.all(np.abs(y - reference) <= steps)
        else:
            np.testing.assert_array_equal(y, reference)
    return wanted


def residual_block(dynamic=False, batch=2):
    chain = Chain(dynamic=dynamic)
    stem = chain.conv(0, 3, 16, (3, 3), pad=1, activation=RELU, quant=(0.04, 0))
    one = chain.conv(stem, 16, 40, (3, 3), pad=1, activation=CLIP, low=0, high=6, quant=(0.02, 0))
    two = chain.conv(one, 40, 16, activation=RELU, other=stem, quant=(0.05, 0))
    wide = chain.conv(two, 16, 24, (3, 3), stride_h=2, stride_w=2, pad=1, quant=(0.05, 120))
    short = chain.conv(two, 16, 24, stride_h=2, stride_w=2, quant=(0.05, 110))
    both = chain.add(Kind.ADD, wide, other=short, activation=RELU, quant=(0.06, 0))
    chain.add(Kind.GLOBAL_AVERAGE, both)
    return chain, activations(batch, 3, 13, 11)


@pytest.mark.parametrize("dynamic", [False, True])
def test_a_residual_network(dynamic):
    chain, x = residual_block(dynamic)
    (wanted,) = check(chain, x)
    assert wanted.shape == (2, 24, 1, 1)
    assert len(np.unique(wanted)) > 20


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("bits", [1, 3, 4, 6, 8])
def test_an_inverted_residual(bits, dynamic):
    chain = Chain(dynamic=dynamic)
    wide = chain.conv(0, 8, 48, bits=bits, activation=CLIP, high=6, quant=(6 / 255, 0))
    deep = chain.conv(
        wide, 48, 48, (3, 3), bits=bits, groups=48, pad=1, activation=CLIP, high=6, quant=(6 / 255, 0)
    )
    chain.conv(deep, 48, 8, bits=bits, other=0)
    check(chain, activations(3, 8, 9, 10))


@pytest.mark.parametrize("pixels", [1, 3, 4, 5, 14, 23, 72])
@pytest.mark.parametrize("bits", range(1, 9))
def test_whole_tile_pairs(bits, pixels):
    """Sums that become bytes where they are made, for every number of rows; 40 channels end in half a pair."""
    chain = Chain()
    short = chain.conv(0, 8, 64, bits=bits, quant=(0.04, 120))
    window = {"left": 1, "right": 1}
    x = chain.conv(
        0, 8, 64, (1, 3), bits=bits, activation=CLIP, low=-0.4, high=1.3, quant=(0.01, 60), **window
    )
    x = chain.conv(x, 64, 64, (1, 3), bits=bits, activation=RELU, other=short, quant=(0.05, 0), **window)
    chain.outputs = [x, chain.conv(x, 64, 40, bits=bits)]
    check(chain, activations(2, 8, 1, pixels))


@pytest.mark.parametrize("scale", [1e-8, 1e-11])
def test_levels_beyond_int32(scale):
    """A level so small that sums, in levels, do not fit an integer: they are clipped all the same."""
    chain = Chain()
    x = chain.conv(0, 8, 64, quant=(scale, 30))
    chain.outputs = [x, chain.conv(x, 64, 8)]
    wanted, _ = check(chain, activations(2, 8, 3, 5))
    assert set(np.unique(wanted / np.float32(scale)).round()) == {-30, 225}


@pytest.mark.parametrize("dynamic", [False, True])
def test_poolings(dynamic):
    chain = Chain(dynamic=dynamic)
    x = chain.conv(0, 5, 20, (3, 3), pad=1, quant=(0.05, 90))
    same = {"kernel_h": 3, "kernel_w": 2, "stride_h": 2, "top": 1, "left": 1}
    a = chain.add(Kind.MAX_POOL, x, quant=(0.05, 90), **same)
    b = chain.add(Kind.MAX_POOL, x, quant=(0.04, 80), **same)
    c = chain.add(Kind.AVERAGE_POOL, x, quant=(0.04, 80), **same)
    d = chain.add(Kind.AVERAGE_POOL, x, quant=(0.04, 80), flag=1, **same)
    total = a
    for other in (b, c, d):
        total = chain.add(Kind.ADD, total, other=other, quant=(0.1, 90))
    wide = {"kernel_w": 3, "dilation_w": 2, "left": 4, "right": 3}
    of = [chain.add(Kind.MAX_POOL, x, **wide | {"stride_w": stride}) for stride in (1, 2, 5)]
    chain.outputs = [total, d, chain.add(Kind.MAX_POOL, x, dilation_h=2, **same), *of]
    check(chain, activations(2, 5, 9, 8))


@pytest.mark.parametrize("dynamic", [False, True])
def test_subsamplings(dynamic):
    """As bytes and with other levels, activated, of an input, as residual, read by a window, leaving as floats."""
    chain = Chain(dynamic=dynamic)
    x = chain.conv(0, 5, 20, (3, 3), pad=1, quant=(0.05, 90))
    some = {"stride_h": 2, "stride_w": 3, "channels_before": 3, "channels_after": 9}
    a = chain.add(Kind.SUBSAMPLE, x, quant=(0.05, 90), **some)
    b = chain.add(Kind.SUBSAMPLE, x, quant=(0.04, 80), activation=RELU, **some)
    c = chain.conv(x, 20, 32, stride_h=2, stride_w=3, other=a, quant=(0.06, 100))
    d = chain.conv(b, 32, 7, (3, 3), pad=1)
    e = chain.add(Kind.SUBSAMPLE, 0, stride_h=40, channels_after=1)
    chain.outputs = [c, d, a, e, chain.add(Kind.SUBSAMPLE, c, stride_w=2, channels_before=1)]
    shapes = [y.shape for y in check(chain, activations(2, 5, 9, 8))]
    assert shapes == [(2, 32, 5, 3), (2, 7, 5, 3), (2, 32, 5, 3), (2, 6, 1, 8), (2, 33, 5, 2)]


@pytest.mark.parametrize("dynamic", [False, True])
def test_large_images_are_taken_one_by_one(dynamic):
    """Until they are small: what is read before and after, and the outputs of both, are those of their image."""
    chain = shrinking(dynamic)
    x, y = activations(3, 3, 80, 90), activations(3, 32, 40, 45)
    x[1, 2, 3, 4] = np.inf
    y *= np.array([1, 2, 3], np.float32).reshape(3, 1, 1, 1)
    got = run(chain, x, y)
    for i in (0, 2):
        wanted = chain_oracle.run(chain.attributes, [x[i : i + 1], y[i : i + 1], *chain.constants])
        for all_images, one in zip(got, wanted, strict=True):
            np.testing.assert_array_equal(all_images[i : i + 1], one)
    assert all(np.isnan(each[1]).all() for each in got)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("batch", [2, 5, 6])
def test_threads_take_images_of_their_own(batch, dynamic):
    """Once a session has seen how many threads it has, and where the batch comes out even: here twice and not."""
    chain = shrinking(dynamic)
    x, y = activations(batch, 3, 80, 90), activations(batch, 32, 40, 45)
    feeds = {"X0": x, "X1": y}
    wanted = session(chain.model(), threads=1).run(None, feeds)
    opened = session(chain.model(), threads=2)
    for _ in range(8):
        for got, of in zip(opened.run(None, feeds), wanted, strict=True):
            np.testing.assert_array_equal(got, of)


def shrinking(dynamic):
    """Images that are large in front and small behind."""
    chain = Chain(inputs=2, dynamic=dynamic)
    a = chain.conv(0, 3, 32, (3, 3), pad=1, activation=RELU, quant=(0.05, 0))
    b = chain.conv(a, 32, 32, stride_h=2, stride_w=2, other=1, quant=(0.07, 100))
    c = chain.add(Kind.MAX_POOL, a, kernel_h=2, kernel_w=2, stride_h=2, stride_w=2, quant=(0.05, 0))
    d = chain.add(Kind.ADD, b, other=c, quant=(0.08, 90))
    e = chain.conv(d, 32, 8, stride_h=8, stride_w=8)
    f = chain.conv(1, 32, 8, stride_h=8, stride_w=8, other=e)
    chain.outputs = [f, b, chain.add(Kind.GLOBAL_AVERAGE, a), chain.add(Kind.GLOBAL_AVERAGE, f)]
    return chain


def test_several_inputs_and_outputs():
    chain = Chain(inputs=2)
    a = chain.conv(0, 6, 12, (3, 3), activation=RELU, quant=(0.05, 0))
    b = chain.conv(1, 4, 12, other=a, quant=(0.07, 128))
    c = chain.conv(b, 12, 33)
    chain.outputs = [a, c, b]
    check(chain, activations(2, 6, 7, 7), activations(2, 4, 5, 5))


def test_signals():
    chain = Chain()
    x = chain.conv(0, 6, 20, (1, 5), activation=RELU, quant=(0.05, 0), left=2, right=2)
    chain.conv(x, 20, 7, (1, 3), stride_w=2, dilation_w=2)
    (wanted,) = check(chain, activations(2, 6, 40))
    assert wanted.shape == (2, 7, 18)


@pytest.mark.parametrize(
    "activation", [Activation.GELU, Activation.GELU_TANH, Activation.SILU, Activation.HARD_SWISH]
)
def test_smooth_activations(activation):
    """The oracle's are exact: a value between two levels may go to either."""
    chain = Chain()
    chain.outputs = [chain.conv(0, 8, 20, activation=activation, quant=(0.05, 20))]
    chain.conv(chain.outputs[0], 20, 4)
    check(chain, activations(2, 8, 6, 6), steps=0.0501)


def test_bits_do_not_depend_on_threads_or_on_other_images():
    chain, x = residual_block(batch=5)
    (alone,) = run(chain, x, threads=1)
    np.testing.assert_array_equal(run(chain, x)[0], alone)
    np.testing.assert_array_equal(run(chain, x[3:4])[0], alone[3:4])


def test_runs_at_once():
    chain, x = residual_block()
    opened = session(chain.model(), threads=2)
    wanted = [opened.run(None, {"X0": x[:, :, : 8 + i]})[0] for i in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            got = pool.map(lambda i: opened.run(None, {"X0": x[:, :, : 8 + i]})[0], range(4))
            for y, reference in zip(got, wanted, strict=True):
                np.testing.assert_array_equal(y, reference)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("dynamic", [False, True])
def test_only_the_image_that_is_not_finite_is_nan(dynamic, value):
    chain, x = residual_block(dynamic)
    (clean,) = run(chain, x)
    x[0, 1, 2, 3] = value
    (y,) = run(chain, x)
    assert np.isnan(y[0]).all()
    np.testing.assert_array_equal(y[1], clean[1])


def test_no_images():
    chain, x = residual_block()
    assert run(chain, x[:0])[0].shape == (0, 24, 1, 1)


def with_field(chain, step, name, value):
    steps = [list(step) for step in chain.steps]
    steps[step][FIELDS.index(name)] = value
    return [value for step in steps for value in step]


@pytest.mark.parametrize(
    ("step", "name", "value", "message"),
    [
        (1, "kind", 9, "step 1 has kind 9"),
        (1, "input", 5, "step 1: its input is tensor 5; wanted one of the 2 before it"),
        (2, "other", -2, "step 2: its other input is tensor -2"),
        (1, "output", 7, "step 1 makes tensor 7; wanted 2"),
        (1, "weight", 5, "step 1 has weight 5; the inputs hold 5"),
        (1, "groups", 7, "7 groups do not divide 40 rows"),
        (1, "activation", 11, "activation is 11"),
        (1, "stride_h", 0, "vertical stride is 0"),
        (1, "bits", 3, "codes have shape"),
        (1, "kind", 2**40, "kind is 1099511627776"),
    ],
)
def test_bad_steps_do_not_load(step, name, value, message):
    chain, _ = residual_block()
    with pytest.raises(ModelError, match=f"Chain: node 'the_chain': {message}"):
        session(chain.model(steps=with_field(chain, step, name, value)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": [1, 2, 3]}, "steps has 3 integers"),
        ({"activations": 0}, "activations is 0"),
        ({"activations": 99}, "activations is 99"),
        ({"outputs": [0]}, "output 0 is tensor 0"),
        ({"outputs": [40]}, "output 0 is tensor 40"),
        ({"tensors": [0.1, 0.0]}, "1 tensors; 1 inputs and 7 steps have 8"),
        ({"tensors": [float("nan"), 0.0] * 8}, "tensor 0: scale nan"),
        ({"tensors": [0.1, 300.0] * 8}, "tensor 0 has zero 300"),
    ],
)
def test_bad_attributes_do_not_load(change, message):
    chain, _ = residual_block()
    with pytest.raises(ModelError, match=message):
        session(chain.model(**change))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 4, 13, 11), "a window of 3 x 3 x 4 channels; the weight has K = 27"),
        ((2, 0, 13, 11), "channels is 0"),
        ((2, 3), r"X has shape \(2, 3\); wanted"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(shape, message):
    chain, _ = residual_block()
    with pytest.raises(InvalidArgument, match=message):
        session(chain.model(len(shape))).run(None, {"X0": activations(*shape)})


def test_inputs_of_another_type_are_refused():
    """The op's inputs are of any type, as far as ONNX Runtime knows."""
    chain, x = residual_block()
    opened = session(chain.model(kind=TensorProto.UINT8))
    with pytest.raises(InvalidArgument, match="'the_chain': input 0 has element type 2; wanted 1"):
        opened.run(None, {"X0": x.astype(np.uint8)})
