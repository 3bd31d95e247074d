"""The ONNX file: valid, dynamic, self-contained or mapped, and never in place unless it was right."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

import hashcompile as hc
import hashcompile.verify as verification
import hashcompile_runtime as hcrt
from hashcompile.core.method import Compute
from hashcompile.lower import onnx as lower_onnx
from tests.models import Residual, build
from tests.oracle import DOMAIN, relative, rounding, stock


@pytest.fixture(scope="module")
def cnn() -> hc.CompiledModel:
    model, inputs = build("cnn")
    return hc.compile(model, inputs(2), compute="float")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("name", ["cnn", "mixed", "transposed", "tied"])
def test_the_file_is_valid_and_says_what_its_nodes_mean(name: str, tmp_path: Path) -> None:
    model, inputs = build(name)
    path = tmp_path / "m.onnx"
    compiled = hc.compile(model, inputs(2), verify=False)
    assert compiled.export_onnx(path) == ()
    assert names(tmp_path) == ["m.onnx"]
    onnx.checker.check_model(str(path), full_check=True)
    proto = onnx.load(str(path))
    (entry,) = proto.graph.input
    dims = entry.type.tensor_type.shape.dim
    assert dims[0].dim_param == "batch"
    assert [dim.dim_value for dim in dims[1:]] == list(inputs(1)[0].shape[1:])
    (output,) = proto.graph.output
    assert output.name == "output"
    assert output.type.tensor_type.shape.dim[0].dim_param == "batch"
    assert [dim.dim_value for dim in output.type.tensor_type.shape.dim][1:] == list(
        compiled(*inputs(2)).shape[1:]
    )
    bodies = {(body.domain, body.name, body.overload): body for body in proto.functions}
    assert len(bodies) == len(proto.functions), "one body for each operator and overload"
    ours = [node for node in proto.graph.node if node.domain == DOMAIN]
    called = [node for body in bodies.values() for node in body.node if node.domain == DOMAIN]
    assert {(node.domain, node.op_type, node.overload) for node in ours + called} == set(bodies)
    assert all(not node.overload for node in called), "ONNX Runtime finds no overload inside a function"
    for node in ours:
        body = bodies[DOMAIN, node.op_type, node.overload]
        assert {attribute.name for attribute in node.attribute} >= set(body.attribute)
        assert len(body.input) == len(node.input)
    chained = {
        name.partition(".weight.codes")[0] for node in ours for name in node.input if node.op_type == "Chain"
    }
    assert {node.name for node in ours} | chained >= {d.layer.name for d in compiled.plan.encoded}
    assert bool(chained) == (name == "cnn")
    assert {entry.domain for entry in proto.opset_import} == {"", DOMAIN}
    text = path.read_bytes()
    assert str(Path(__file__).parent).encode() not in text, "no path of the user's leaves the machine"


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(32, 32)

    def forward(self, left: Tensor, right: Tensor) -> dict[str, Any]:
        y = self.fc(left)
        return {"sum": (y + right, y), "same": left}


def test_names_of_inputs_and_outputs(tmp_path: Path) -> None:
    x = torch.ones(2, 32)
    compiled = hc.compile(Named(), {"left": x, "right": x.clone()}, compute="float")
    compiled.export_onnx(tmp_path / "m.onnx")
    session = stock(tmp_path / "m.onnx")
    assert [(entry.name, entry.shape) for entry in session.get_inputs()] == [
        ("left", ["batch", 32]),
        ("right", ["batch", 32]),
    ]
    left, right = torch.randn(3, 32), torch.randn(3, 32)
    got = session.run(None, {"left": left.numpy(), "right": right.numpy()})
    total, y = compiled(left=left, right=right)["sum"]
    for value, wanted in zip(got, (total, y, left), strict=True):
        assert relative(value, wanted) <= 2 * rounding(compiled)
    # after the keys of the dict
    assert [entry.name for entry in session.get_outputs()] == ["sum_0", "sum_1", "same"]


class Keys(nn.Module):
    """Outputs whose keys make poor names."""

    def __init__(self, keys: tuple[str, str]) -> None:
        super().__init__()
        self.fc = nn.Linear(32, 32)
        self.keys = keys

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = self.fc(x)
        return {self.keys[0]: y, self.keys[1]: y + 1}


@pytest.mark.parametrize(
    ("keys", "names"),
    [
        (("logits", "loss"), ["logits", "loss"]),
        (("x", "y"), ["x_", "y"]),  # the input's name is taken
        (("a b", "c"), ["output_0", "output_1"]),
    ],
)
def test_outputs_are_named_after_the_keys_of_a_dict(
    keys: tuple[str, str], names: list[str], tmp_path: Path
) -> None:
    compiled = hc.compile(Keys(keys), (torch.randn(2, 32),), compute="float")
    compiled.export_onnx(tmp_path / "m.onnx")
    session = stock(tmp_path / "m.onnx")
    assert [entry.name for entry in session.get_outputs()] == names
    x = torch.randn(3, 32)
    for got, wanted in zip(session.run(None, {"x": x.numpy()}), compiled(x).values(), strict=True):
        assert relative(got, wanted) <= 2 * rounding(compiled)


@pytest.mark.parametrize("size", [1, 9])
def test_other_dynamic_dims(size: int, tmp_path: Path) -> None:
    sequence = torch.export.Dim("sequence", max=64)
    model, x = nn.Linear(32, 40), torch.randn(3, size, 32)
    compiled = hc.compile(
        model, (x,), dynamic_shapes=({0: torch.export.Dim.AUTO, 1: sequence},), compute="float"
    )
    compiled.export_onnx(tmp_path / "m.onnx")
    for session in (stock(tmp_path / "m.onnx"), hcrt.session(tmp_path / "m.onnx")):
        assert all(isinstance(dim, str) for dim in session.get_inputs()[0].shape[:2])
        for shape in ((1, 1, 32), (2, 17, 32)):
            x = torch.randn(shape)
            (got,) = session.run(None, {"input": x.numpy()})
            with torch.no_grad():
                assert relative(got, compiled(x)) <= 2 * rounding(compiled)


class Width(nn.Module):
    """Dim 0 is twice the size of another input's dim."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(32, 40)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.fc(x).reshape(2, -1, 40).sum(0) + y[:, :1]


B = torch.export.Dim("b", min=4, max=12)


@pytest.mark.parametrize(
    ("dim", "size", "allowed"),
    [
        (B, 12, range(4, 13)),
        (B, 5, range(4, 13)),
        (2 * B, 16, range(8, 25, 2)),
        (2 * B, 24, range(8, 25, 2)),
        (torch.export.Dim("b", min=2), 3, range(2, 100)),
        (torch.export.Dim("b"), 3, range(1, 100)),
        (torch.export.Dim.AUTO, 3, range(1, 100)),
    ],
)
def test_only_sizes_that_the_user_allows_are_run(
    dim: Any, size: int, allowed: range, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = set()
    real = verification.run

    def run(session: Any, signature: Any, batch: Any) -> Any:
        seen.add(len(batch[0]))
        return real(session, signature, batch)

    monkeypatch.setattr(verification, "run", run)
    x = torch.randn(size, 32)
    compiled = hc.compile(nn.Linear(32, 40), (x,), calibration=[(x,)], dynamic_shapes=({0: dim},))
    compiled.export_onnx(tmp_path / "m.onnx")
    compiled.save(tmp_path / "m.hc")
    hc.load(tmp_path / "m.hc").export_onnx(tmp_path / "again.onnx")
    assert seen <= set(allowed) and min(seen) == allowed[0] and len(seen) > 1


def test_a_size_on_which_another_hangs_is_not_cut(tmp_path: Path) -> None:
    x, y = torch.randn(12, 32), torch.randn(6, 3)
    shapes = {"x": {0: 2 * B}, "y": {0: B}}
    compiled = hc.compile(Width(), (x, y), calibration=[(x, y)], dynamic_shapes=shapes)
    compiled.export_onnx(tmp_path / "m.onnx")


def test_weights_in_a_file_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = build("mixed")
    compiled = hc.compile(model, inputs(2), compute="float")
    compiled.export_onnx(tmp_path / "whole.onnx")
    monkeypatch.setattr(lower_onnx, "EXTERNAL", 1000)
    folder = tmp_path / "parts"
    folder.mkdir()
    checks = compiled.export_onnx(folder / "m.onnx")
    assert [check.runtime for check in checks] == ["stock", "hashcompile"]
    data, model = sorted(names(folder), key=lambda name: name.endswith(".onnx"))
    assert model == "m.onnx" and data.startswith("m.") and data.endswith(".data")
    onnx.checker.check_model(str(folder / "m.onnx"))
    proto = onnx.load(str(folder / "m.onnx"), load_external_data=False)
    offsets = []
    for tensor in proto.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            places = {entry.key: entry.value for entry in tensor.external_data}
            assert places["location"] == data
            offsets.append(int(places["offset"]))
            assert int(places["offset"]) + int(places["length"]) <= (folder / data).stat().st_size
    assert len(offsets) >= 2 and all(offset % 4096 == 0 for offset in offsets)
    x = inputs(3)[0]
    with torch.no_grad():
        wanted = compiled(x)
    for session in (stock(folder / "m.onnx"), hcrt.session(folder / "m.onnx")):
        (got,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        assert relative(got, wanted) <= 2 * rounding(compiled)
    whole = {
        t.name: numpy_helper.to_array(t) for t in onnx.load(str(tmp_path / "whole.onnx")).graph.initializer
    }
    for tensor in onnx.load(str(folder / "m.onnx")).graph.initializer:
        np.testing.assert_array_equal(numpy_helper.to_array(tensor), whole[tensor.name])


def test_a_new_export_does_not_break_the_old_data(
    cnn: hc.CompiledModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Data files are named by content: one that fails leaves the model that stands there whole."""
    monkeypatch.setattr(lower_onnx, "EXTERNAL", 1000)
    cnn.export_onnx(tmp_path / "m.onnx")
    before = {name: (tmp_path / name).read_bytes() for name in names(tmp_path)}
    model, inputs = build("cnn")
    other = hc.compile(model, inputs(2), hc.Codebook(2), compute="float")
    corrupt(monkeypatch)
    with pytest.raises(hc.VerificationError):
        other.export_onnx(tmp_path / "m.onnx")
    assert {name: (tmp_path / name).read_bytes() for name in names(tmp_path)} == before


def test_places_that_cannot_be_written(cnn: hc.CompiledModel, tmp_path: Path) -> None:
    with pytest.raises(hc.ArtifactError, match="there is no directory"):
        cnn.export_onnx(tmp_path / "nowhere" / "m.onnx")
    with pytest.raises(hc.ArtifactError, match="is a directory"):
        cnn.export_onnx(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(hc.ArtifactError):
        cnn.export_onnx(tmp_path / "file" / "m.onnx")
    with pytest.raises(hc.ArtifactError):
        cnn.export_onnx("/proc/m.onnx")
    assert names(tmp_path) == ["file"]


def corrupt(monkeypatch: pytest.MonkeyPatch, layer: str = "conv") -> None:
    """The lowering writes one layer's scales a tenth too large."""
    real = lower_onnx.lower

    def lower(*args: Any, **kwargs: Any) -> Any:
        lowered = real(*args, **kwargs)
        for name, value in lowered.model.graph.initializers.items():
            if name.startswith(f"{layer}.weight.scale"):
                value.const_value = ir.tensor(value.const_value.numpy() * np.float32(1.1), name=name)
                return lowered
        raise AssertionError(f"no scale of {layer}")

    monkeypatch.setattr(lower_onnx, "lower", lower)


@pytest.mark.parametrize(
    ("compute", "old"), [("float", b"the old file"), ("int8", b"the old file"), ("int8", None)]
)
def test_a_wrong_file_never_appears(
    compute: Any, old: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, inputs = build("cnn")
    compiled = hc.compile(model, inputs(2), compute=compute)
    path = tmp_path / "m.onnx"
    if old is not None:
        path.write_bytes(old)
    corrupt(monkeypatch)
    with pytest.raises(hc.VerificationError) as caught:
        compiled.export_onnx(path)
    text = str(caught.value)
    # a batch norm is folded into the convolution before it, whose operator takes the activation behind it as well; of a
    # chain, only what leaves it can be seen
    norms = [node for node in compiled.graph_module.graph.nodes if "batch_norm" in node.name]
    assert len(norms) == 2
    (behind,) = norms[1].users
    assert f"the first node that differs is {behind.name if compute == 'float' else 'mean'} " in text
    assert "m.onnx in stock ONNX Runtime differs" in text and "relative error" in text
    assert names(tmp_path) == ([] if old is None else ["m.onnx"])
    if old is not None:
        assert path.read_bytes() == old


def test_the_message_names_the_users_line(
    cnn: hc.CompiledModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corrupt(monkeypatch, "head")
    with pytest.raises(hc.VerificationError, match=r"the first node that differs is linear .*, from .*:\d+"):
        cnn.export_onnx(tmp_path / "m.onnx")


def test_the_users_line_is_in_the_users_file(
    cnn: hc.CompiledModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corrupt(monkeypatch, "head")
    with pytest.raises(hc.VerificationError, match=inspect.getsourcefile(Residual)):
        cnn.export_onnx(tmp_path / "m.onnx")


class TwoSizes(nn.Module):
    """One group norm on images of two sizes, which the exporter does not know inside of it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.GroupNorm(2, 8)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        levels = [self.head(self.norm(self.conv(y)).relu()).flatten(2) for y in (x, x[:, :, ::2, ::2])]
        return torch.cat(levels, 2)


def test_sizes_without_a_name_may_differ(tmp_path: Path) -> None:
    inputs = (torch.randn(2, 3, 8, 8),)
    compiled = hc.compile(TwoSizes().eval(), inputs, compute="float")
    assert len(compiled.export_onnx(tmp_path / "m.onnx")) == 2
    shapes = [value.type.tensor_type.shape for value in onnx.load(tmp_path / "m.onnx").graph.value_info]
    assert "None" not in {dim.dim_param for shape in shapes for dim in shape.dim}


def test_a_file_that_does_not_run_is_our_error_and_names_the_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lie(model: ir.Model) -> None:
        for value in lower_onnx.every_value(model.graph):
            if value.shape is not None:
                sizes = [getattr(size, "value", size) or "same" for size in value.shape]
                value.shape = ir.Shape(sizes)

    monkeypatch.setattr(lower_onnx, "strip", lie)
    compiled = hc.compile(TwoSizes().eval(), (torch.randn(2, 3, 8, 8),), compute="float")
    with pytest.raises(hc.VerificationError, match=r"m\.onnx does not run in stock ONNX Runtime: .*node_\w+"):
        compiled.export_onnx(tmp_path / "m.onnx")
    assert names(tmp_path) == []


def test_verification_can_be_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = build("cnn")
    compiled = hc.compile(model, inputs(2), verify=False)
    corrupt(monkeypatch)
    assert compiled.export_onnx(tmp_path / "m.onnx") == ()
    assert names(tmp_path) == ["m.onnx"]


def test_an_interrupt_leaves_nothing(
    cnn: hc.CompiledModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(lower_onnx, "write", interrupt)
    with pytest.raises(KeyboardInterrupt):
        cnn.export_onnx(tmp_path / "m.onnx")
    assert names(tmp_path) == []


def test_an_export_changes_nothing(cnn: hc.CompiledModel, tmp_path: Path) -> None:
    x = build("cnn")[1](3)[0]
    before, graph = cnn(x), str(cnn.graph_module.graph)
    cnn.export_onnx(tmp_path / "1.onnx")
    cnn.export_onnx(tmp_path / "2.onnx")
    assert torch.equal(cnn(x), before) and str(cnn.graph_module.graph) == graph
    assert (tmp_path / "1.onnx").read_bytes() == (tmp_path / "2.onnx").read_bytes()


class Odd(nn.Module):
    def __init__(self, what: str) -> None:
        super().__init__()
        self.fc = nn.Linear(32, 32)
        self.what = what

    def forward(self, x: Tensor) -> Any:
        y = self.fc(x)
        return {"twice": (y, y), "none": (y, None), "input": (x, y), "bias": (y, self.fc.bias)}[self.what]


@pytest.mark.parametrize("what", ["twice", "none", "input", "bias"])
def test_odd_outputs(what: str, tmp_path: Path) -> None:
    compiled = hc.compile(Odd(what), (torch.randn(2, 32),), compute="float")
    compiled.export_onnx(tmp_path / "m.onnx")
    x = torch.randn(3, 32)
    wanted = [y for y in compiled(x) if y is not None]
    for got, value in zip(stock(tmp_path / "m.onnx").run(None, {"x": x.numpy()}), wanted, strict=True):
        assert relative(got, value) <= 2 * rounding(compiled)


class Size(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(32, 32)

    def forward(self, x: Tensor) -> Any:
        return self.fc(x), x.shape[0]


class Output(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(32, 32)

    def forward(self, output: Tensor) -> Tensor:
        return self.fc(output)


def test_a_size_among_the_outputs(tmp_path: Path) -> None:
    try:
        hc.compile(Size(), (torch.randn(2, 32),)).export_onnx(tmp_path / "m.onnx")
    except hc.HashcompileError:
        return  # to refuse is right as well


def test_an_input_named_output(tmp_path: Path) -> None:
    hc.compile(Output(), (torch.randn(2, 32),)).export_onnx(tmp_path / "m.onnx")


def test_int32_ids(tmp_path: Path) -> None:
    ids = torch.arange(20, dtype=torch.int32).reshape(2, 10)
    hc.compile(nn.Embedding(90, 24), (ids,)).export_onnx(tmp_path / "m.onnx")


class FiveDims(nn.Module):
    """What the exporter cannot lower."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(32, 32)

    def forward(self, x: Tensor) -> Tensor:
        y = self.fc(x)
        return nn.functional.scaled_dot_product_attention(y, y, y)


def test_what_cannot_be_lowered_is_an_export_error(tmp_path: Path) -> None:
    compiled = hc.compile(FiveDims(), (torch.randn(2, 2, 2, 3, 32),))
    with pytest.raises(hc.ExportError, match="could not be lowered to ONNX"):
        compiled.export_onnx(tmp_path / "m.onnx")
    assert names(tmp_path) == []


def test_what_cannot_be_lowered_is_named(tmp_path: Path) -> None:
    compiled = hc.compile(FiveDims(), (torch.randn(2, 2, 2, 3, 32),))
    with pytest.raises(hc.ExportError, match=r"scaled_dot_product_attention") as caught:
        compiled.export_onnx(tmp_path / "m.onnx")
    assert "\x1b" not in str(caught.value)


class Namesake(nn.Module):
    """Has modules and buffers by the names that nodes of ours would get."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(16, 16)
        self.linear_op = nn.Linear(16, 16)
        self.norm = nn.LayerNorm(16, elementwise_affine=False)
        self.register_buffer("layer_norm_weight", torch.full((16,), 3.0))
        self.conv = nn.Conv1d(1, 4, 1)
        self.after = nn.BatchNorm1d(4)
        self.register_buffer("batch_norm_folded_bias", torch.ones(4, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.linear_op(torch.relu(self.first(x)))) * self.layer_norm_weight
        return self.after(self.conv(x[:, None])) + self.batch_norm_folded_bias


@pytest.mark.parametrize("compute", ["float", "int8"])
def test_names_that_are_taken(compute: Compute, tmp_path: Path) -> None:
    torch.manual_seed(0)
    compiled = hc.compile(Namesake().eval(), (torch.randn(4, 16),), compute=compute)
    assert len(compiled.export_onnx(tmp_path / "m.onnx")) == 2, "verified"
