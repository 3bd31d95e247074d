"""The ops in ONNX Runtime sessions: results, refusals, threads."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

from hashcompile_runtime import ModelError, session
from hashcompile_runtime._native import FLOAT, INT8
from tests.runtime.oracle import activations, layer


def model(of, op="CodebookLinear", rank=2, compute=FLOAT, drop=(), computed=(), **attributes):
    """One node. `drop`: inputs left out; `computed`: inputs that no longer are initializers."""
    arrays = {"codes": of.codes, "codebook": of.codebook, "scale": of.scale}
    if op != "CodebookEmbedding":
        attributes.setdefault("compute", compute)
        if of.bias is not None:
            arrays["bias"] = of.bias
    defaults = {"bits": of.bits, "in_features": of.centroids.shape[1], "group_rows": of.group_rows}
    names = [name for name in arrays if name not in drop]
    node = helper.make_node(
        op, ["X", *names], ["Y"], name="the_node", domain="com.hashcompile", **(defaults | attributes)
    )
    kind = TensorProto.INT64 if op == "CodebookEmbedding" else TensorProto.FLOAT
    inputs = [helper.make_tensor_value_info("X", kind, [None] * rank)]
    for name in computed:
        inputs.append(
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(arrays[name].dtype), arrays[name].shape
            )
        )
    graph = helper.make_graph(
        [node],
        "one",
        inputs,
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(arrays[name], name) for name in names if name not in computed],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.hashcompile", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


def run(data, x, threads=2):
    return session(data, threads=threads).run(None, {"X": x})[0]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("compute", [FLOAT, INT8])
@pytest.mark.parametrize("shape", [(24,), (0, 24), (5, 24), (2, 3, 24), (2, 0, 3, 24)], ids=str)
def test_linear(shape, compute, bias):
    of, x = layer(4, 40, 24, bias=bias), activations(*shape)
    data = model(of, rank=len(shape), compute=compute)
    wanted = of.weight(compute).linear(x)
    for threads in (1, 2):
        np.testing.assert_array_equal(run(data, x, threads), wanted)


@pytest.mark.parametrize("compute", [FLOAT, INT8])
def test_conv(compute):
    of, x = layer(4, 20, 3 * 3 * 8), activations(2, 8, 9, 7)
    window = {"kernel_shape": [3, 3], "strides": [1, 2], "pads": [1, 0, 2, 1], "dilations": [2, 1]}
    got = run(model(of, "CodebookConv", 4, compute, **window), x)
    np.testing.assert_array_equal(got, of.weight(compute).conv2d(x, *window.values()))


@pytest.mark.parametrize("compute", [FLOAT, INT8])
def test_conv_1d(compute):
    of, x = layer(3, 20, 5 * 8), activations(2, 8, 30)
    window = {"kernel_shape": [5], "strides": [2], "pads": [1, 2], "dilations": [3]}
    got = run(model(of, "CodebookConv", 3, compute, **window), x)
    wanted = of.weight(compute).conv2d(x[:, :, None], (1, 5), (1, 2), (0, 1, 0, 2), (1, 3))
    np.testing.assert_array_equal(got, wanted[:, :, 0])


@pytest.mark.parametrize("shape", [(), (6,), (2, 3), (2, 0)], ids=str)
def test_embedding(shape):
    of = layer(4, 50, 24)
    ids = np.random.default_rng(0).integers(-50, 50, shape)
    got = run(model(of, "CodebookEmbedding", len(shape)), np.asarray(ids))
    np.testing.assert_array_equal(got, of.dense[ids])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bits": 3}, r"codes have shape \(2, 3, 1, 2, 16, 4\); 3 bits, 40 x 24 need \(2, 1, 3, 2, 16, 4\)"),
        ({"bits": 12}, "bits is 12"),
        ({"in_features": 25}, r"codes have shape .* 4 bits, 40 x 25 need \(2, 4, 1, 2, 16, 4\)"),
        ({"in_features": -1}, "in_features is negative"),
        ({"group_rows": 16}, "codebook has 16 values; wanted 48"),
        ({"group_rows": 8}, "group_rows is 8; wanted 0 or a multiple of 16"),
        ({"compute": 7}, "compute is 7"),
        ({"computed": ["codes"]}, r"input 1 \(codes\) must be a constant initializer"),
        ({"computed": ["scale"]}, r"input 3 \(scale\) must be a constant initializer"),
        ({"computed": ["bias"]}, r"input 4 \(bias\) must be a constant initializer"),
    ],
)
def test_bad_linear_nodes_do_not_load(change, message):
    with pytest.raises(ModelError, match=f"node 'the_node': {message}"):
        session(model(layer(4, 40, 24), **change))


def test_tables_that_are_not_finite_do_not_load():
    of = layer(4, 40, 24)
    of.codebook[0, 5] = np.inf
    with pytest.raises(ModelError, match=r"node 'the_node': codebook\[5\] is not finite"):
        session(model(of))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kernel_shape": [3, 3, 1]}, "kernel_shape has 3 values; wanted 1 or 2"),
        ({"strides": [1]}, "strides has 1 values; kernel_shape has 2"),
        ({"pads": [1, 1]}, "pads has 2 values; wanted 4"),
        ({"kernel_shape": [5, 3]}, r"in_features is 72; wanted kh \* kw \* C / group with a kernel of 5 x 3"),
    ],
)
def test_bad_conv_nodes_do_not_load(change, message):
    window = {"kernel_shape": [3, 3], "strides": [1, 1], "pads": [0] * 4, "dilations": [1, 1]} | change
    with pytest.raises(ModelError, match=message):
        session(model(layer(4, 20, 72), "CodebookConv", 4, **window))


def test_bad_inputs_at_run_time():
    of = layer(4, 40, 24)
    with pytest.raises(InvalidArgument, match=r"'the_node': X has shape \(5, 23\); wanted \(..., 24\)"):
        run(model(of), activations(5, 23))
    with pytest.raises(InvalidArgument, match=r"'the_node': id 40 at position 2; the table has 40 rows"):
        run(model(of, "CodebookEmbedding", 1), np.array([0, -40, 40]))
    window = {"kernel_shape": [1, 1], "strides": [1, 1], "pads": [0] * 4, "dilations": [1, 1]}
    conv = model(of, "CodebookConv", 4, **window)
    with pytest.raises(InvalidArgument, match=r"X has shape \(1, 23, 2, 2\); wanted \(B, 24, H, W\)"):
        run(conv, activations(1, 23, 2, 2))


@pytest.mark.parametrize("compute", [FLOAT, INT8])
def test_concurrent_runs_and_sessions_agree(compute):
    of, x = layer(4, 700, 512), activations(64, 512)
    data = model(of, compute=compute)
    sessions = [session(data, threads=2), session(data, threads=1)]
    wanted = of.weight(compute).linear(x)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda i: sessions[i % 2].run(None, {"X": x})[0], range(24)))
    for result in results:
        np.testing.assert_array_equal(result, wanted)


def test_external_data_at_any_offset(tmp_path):
    of, x = layer(4, 40, 24), activations(3, 24)
    path = tmp_path / "m.onnx"
    proto = onnx.load_from_string(model(of))
    blob = b""
    for tensor in proto.graph.initializer:
        raw = tensor.raw_data
        onnx.external_data_helper.set_external_data(tensor, "m.bin", offset=len(blob) + 1, length=len(raw))
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        blob += b"\0" + raw
    (tmp_path / "m.bin").write_bytes(blob)
    path.write_bytes(proto.SerializeToString())
    np.testing.assert_array_equal(run(path, x), of.weight().linear(x))


def test_files_that_are_no_models(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no model file at .*missing\.onnx"):
        session(tmp_path / "missing.onnx")
    path = tmp_path / "text.onnx"
    path.write_text("not a model at all")
    with pytest.raises(ModelError, match=r"text\.onnx is not an ONNX model"):
        session(path)
    with pytest.raises(ModelError, match="18 bytes is not an ONNX model"):
        session(path.read_bytes())
    with pytest.raises(ValueError, match="threads is 0"):
        session(path, threads=0)


def test_options_serve_several_sessions_and_keep_what_they_say():
    of, x = layer(4, 40, 24), activations(3, 24)
    options, key = ort.SessionOptions(), "optimization.disable_specified_optimizers"
    options.add_session_config_entry(key, "GeluFusion;MatMulAddFusion")
    for _ in range(2):
        (got,) = session(model(of), options=options).run(None, {"X": x})
        np.testing.assert_array_equal(got, of.weight().linear(x))
    disabled = options.get_session_config_entry(key).split(";")
    assert disabled == ["GeluFusion", "MatMulAddFusion", "SkipLayerNormFusion"]
