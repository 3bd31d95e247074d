"""Two layers in one call: the bits are those of one after the other, however the rows are cut."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

from hashcompile_runtime import ModelError, NativeError, session
from hashcompile_runtime._native import BF16, FLOAT, INT8, Epilogue, feed_forward
from tests.runtime import abi
from tests.runtime.oracle import ISAS, activations, layer

GELU = Epilogue("gelu")
FEW, MANY = 256, 257  # rows: layer by layer, and in runs


def one_after_the_other(up, down, x, between=GELU, after=None):
    return down.linear(up.linear(x, epilogue=between), epilogue=after)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("rows", [0, 1, 17, FEW, MANY, 512, 600, 1024, 2100])
def test_every_number_of_rows(rows, isa):
    up, down = layer(4, 72, 20).weight(INT8, isa=isa), layer(3, 33, 72).weight(INT8, isa=isa)
    x = activations(rows, 20)
    np.testing.assert_array_equal(feed_forward(up, down, x, GELU), one_after_the_other(up, down, x))


@pytest.mark.parametrize(
    "sizes", [(1, 1, 1), (24, 16, 40), (24, 0, 8), (0, 24, 8), (24, 40, 0), (4, 8224, 5)]
)
@pytest.mark.parametrize("compute", [FLOAT, INT8, BF16])
@pytest.mark.parametrize("rows", [FEW, MANY])
def test_every_shape_and_arithmetic(rows, compute, sizes):
    """8224 hidden values a row are too many for runs of 16 rows."""
    k, hidden, n = sizes
    up, down = layer(4, hidden, k).weight(compute), layer(8, n, hidden).weight(compute)
    x = activations(rows, k)
    np.testing.assert_array_equal(feed_forward(up, down, x, GELU), one_after_the_other(up, down, x))


@pytest.mark.parametrize("between", [Epilogue("none"), Epilogue("relu"), Epilogue("clip", -0.5, 0.75), GELU])
@pytest.mark.parametrize("rows", [FEW, MANY])
def test_what_follows_each(rows, between):
    up, down = layer(4, 72, 20).weight(INT8), layer(4, 36, 72).weight(INT8)
    x = activations(rows, 20)
    after = Epilogue("silu", residual=activations(rows, 36))
    wanted = one_after_the_other(up, down, x, between, after)
    for threads in (1, 2):
        np.testing.assert_array_equal(feed_forward(up, down, x, between, after, threads), wanted)


@pytest.mark.parametrize("poison", [np.nan, np.inf])
@pytest.mark.parametrize("rows", [FEW, MANY])
def test_what_is_not_finite_stays_in_its_row(rows, poison):
    up, down = layer(4, 72, 20).weight(INT8), layer(4, 36, 72).weight(INT8)
    x = activations(rows, 20)
    clean = feed_forward(up, down, x, GELU)
    x[100, 3] = poison
    y = feed_forward(up, down, x, GELU)
    assert np.isnan(y[100]).all()
    np.testing.assert_array_equal(np.delete(y, 100, 0), np.delete(clean, 100, 0))


def test_layers_that_do_not_fit_are_refused():
    up, down = layer(4, 72, 20).weight(INT8), layer(4, 36, 73).weight(INT8)
    with pytest.raises(NativeError, match="the second layer reads 73 values; the first makes 72"):
        feed_forward(up, down, activations(3, 20), GELU)
    grouped = layer(4, 72, 20).weight(INT8, groups=2)
    with pytest.raises(NativeError, match="a weight of 2 groups"):
        feed_forward(grouped, down, activations(3, 20), GELU)


@pytest.mark.parametrize("missing", ["up", "down", "x", "y"])
def test_without_memory(missing):
    up, down = layer(4, 72, 20).weight(INT8), layer(4, 36, 72).weight(INT8)
    x, y = activations(3, 20), np.zeros((3, 36), np.float32)
    given = {"up": up._handle, "down": down._handle, "x": abi.pointer(x), "m": 3, "y": abi.pointer(y)}
    given[missing] = None
    assert abi.attempt("hc_feed_forward", *given.values(), None, None, None) == 1


def test_a_residual_between_the_layers_is_refused():
    up, down = layer(4, 72, 20).weight(INT8), layer(4, 36, 72).weight(INT8)
    x, y = activations(3, 20), np.zeros((3, 36), np.float32)
    between = abi.Epilogue(abi.ctypes.sizeof(abi.Epilogue), 0, 0, 0, abi.pointer(y))
    pointers = up._handle, down._handle, abi.pointer(x), 3, abi.pointer(y)
    with pytest.raises(NativeError, match="a residual between the layers"):
        abi.call("hc_feed_forward", *pointers, abi.byref(between), None, None)


def model(up, down, **changes):
    """One node, with a residual R."""
    arrays, attributes = {}, {"compute": INT8, "activation": "gelu"}
    for of, ending in ((up, ""), (down, "_2")):
        arrays |= {f"{name}{ending}": getattr(of, name) for name in ("codes", "codebook", "scale", "bias")}
        attributes |= {
            f"bits{ending}": of.bits,
            f"in_features{ending}": of.centroids.shape[1],
            f"group_rows{ending}": of.group_rows,
        }
    node = helper.make_node(
        "FeedForward",
        ["X", *arrays, "R"],
        ["Y"],
        name="pair",
        domain="com.hashcompile",
        **(attributes | changes),
    )
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("X", "R", "Y")]
    held = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph([node], "one", values[:2], values[2:], held)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.hashcompile", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


@pytest.mark.parametrize("shape", [(20,), (0, 20), (5, 20), (3, 100, 20)], ids=str)
def test_in_a_session(shape):
    up, down = layer(4, 72, 20, bias=True), layer(3, 36, 72, bias=True)
    x, residual = activations(*shape), activations(*shape[:-1], 36)
    between, after = GELU, Epilogue("relu", residual=residual)
    wanted = one_after_the_other(up.weight(INT8), down.weight(INT8), x, between, after)
    for threads in (1, 2):
        got = session(model(up, down, activation_2="relu"), threads=threads).run(
            None, {"X": x, "R": residual}
        )[0]
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"in_features_2": 640}, "codes have shape"),
        ({"bits_2": 9}, "bits is 9"),
        ({"activation": "tanh"}, "activation is 'tanh'"),
        ({"activation_2": "tanh"}, "activation is 'tanh'"),
        ({"compute": 3}, "compute is 3"),
    ],
)
def test_bad_attributes_do_not_load(changes, message):
    with pytest.raises(ModelError, match=f"pair.*{message}"):
        session(model(layer(4, 72, 20, bias=True), layer(4, 36, 72, bias=True), **changes))


def test_layers_that_do_not_fit_do_not_load():
    with pytest.raises(ModelError, match="in_features_2 is 40; the first layer makes 72"):
        session(model(layer(4, 72, 20, bias=True), layer(4, 36, 40, bias=True)))


def test_inputs_that_do_not_fit_are_refused():
    runs = session(model(layer(4, 72, 20, bias=True), layer(4, 36, 72, bias=True)))
    for x, residual, message in (((5, 21), (5, 36), "X has shape"), ((5, 20), (5, 35), "residual has shape")):
        with pytest.raises(InvalidArgument, match=message):
            runs.run(None, {"X": activations(*x), "R": activations(*residual)})
