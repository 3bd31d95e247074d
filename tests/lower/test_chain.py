"""Chains: which nodes become one, and that the node says what they computed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

import hashcompile as hc
import hashcompile_runtime as hcrt
from hashcompile.core.sweep import sweep
from hashcompile.inspector import inspect
from hashcompile.lower.pointwise import Activation
from hashcompile.lower.select import Selection, select
from hashcompile.lower.steps import Kind
from hashcompile.lower.subsample import Subsample
from hashcompile.rounded import rounded
from tests.models import normal
from tests.oracle import DOMAIN, relative, rounding
from tests.runtime import chain_oracle
from tests.test_export import corrupt

CONV, ADD, AVERAGE = Kind.CONV, Kind.ADD, Kind.GLOBAL_AVERAGE


class ResNet(nn.Module):
    """A stem with a pool, a block with a shortcut of its own and one without, in place as torchvision writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(True), nn.MaxPool2d(3, 2, 1)
        )
        self.a1, self.a2 = nn.Conv2d(32, 40, 3, 2, 1), nn.Conv2d(40, 40, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(40)
        self.short = nn.Conv2d(32, 40, 1, 2)
        self.b1, self.b2 = nn.Conv2d(40, 40, 1), nn.Conv2d(40, 40, 3, 1, 1)
        self.head = nn.Linear(40, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.norm(self.a2(nn.functional.relu_(self.a1(x))))
        y += self.short(x)
        y = nn.functional.relu_(y)
        y = nn.functional.relu(self.b2(nn.functional.relu(self.b1(y))) + y)
        return self.head(nn.functional.adaptive_avg_pool2d(y, 1).flatten(1))


class Mobile(nn.Module):
    """Depthwise and grouped convolutions between linear bottlenecks, with every activation."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Conv2d(8, 48, 1)
        self.deep = nn.Conv2d(48, 48, 3, padding=1, groups=48)
        self.down = nn.Conv2d(48, 8, 1)
        self.grouped = nn.Conv2d(8, 32, 3, padding=(2, 1), dilation=(2, 1), stride=(1, 2), groups=2)
        self.last = nn.ModuleList(nn.Conv2d(32, 32, 1) for _ in range(5))

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(nn.functional.relu6(self.deep(nn.functional.hardswish(self.up(x))))) + x
        x = nn.functional.silu(self.grouped(x))
        x = nn.functional.gelu(self.last[0](x))
        x = nn.functional.gelu(self.last[1](x), approximate="tanh")
        x = nn.functional.avg_pool2d(self.last[2](x).clamp(min=-0.3), 2, padding=1, count_include_pad=False)
        x = nn.functional.avg_pool2d(
            nn.functional.hardtanh(self.last[3](x), -0.5, 0.4), (2, 1), padding=(1, 0)
        )
        return self.last[4](x).mean((2, 3))


class Wave(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv1d(16, 40, 5, stride=2, padding=2)
        self.two = nn.Conv1d(40, 24, 3, padding="same", dilation=2)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.max_pool1d(self.two(self.one(x).relu()), 3, 2).mean(-1, keepdim=True)


class Two(nn.Module):
    """A tensor that steps read leaves as well."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(8, 32, 3, padding=1), nn.Conv2d(32, 32, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.one(x).relu()
        return x, self.two(x) + x


class Concat(nn.Module):
    """A concatenation, which no step is, between two chains; the second reads what the first computed earlier."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(8, 32, 3, padding=1), nn.Conv2d(32, 32, 1)
        self.three, self.four = nn.Conv2d(64, 32, 1), nn.Conv2d(32, 32, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x).relu()
        y = self.two(x)
        z = self.three(torch.cat([x, y], 1)) + y
        return self.four(z)


class Late(nn.Module):
    """The second input of the chain is computed behind the first reader of its output."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = (nn.Conv2d(8, 8, 3, padding=1) for _ in range(3))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.two(self.one(x))
        leaves = y.softmax(1)
        late = x.sigmoid()
        return leaves, self.three(y) + late


class Ceiling(nn.Module):
    """Pools whose last windows reach beyond the image."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = nn.Conv2d(8, 32, 1), nn.Conv2d(32, 32, 1), nn.Conv2d(32, 16, 1)
        self.four = nn.Conv2d(16, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(self.one(x).relu(), 3, 2, ceil_mode=True)
        x = nn.functional.avg_pool2d(self.two(x), 2, 2, ceil_mode=True)
        x = nn.functional.avg_pool2d(self.three(x), 3, 2, 1, ceil_mode=True, count_include_pad=False)
        return self.four(x)


class Shortcut(nn.Module):
    """Option A of He et al.: every second pixel, zeros for the new channels; more before than after."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 3, padding=1)
        self.one, self.two = nn.Conv2d(24, 40, 3, (2, 3), 1), nn.Conv2d(40, 40, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        y = self.two(self.one(x).relu())
        return (y + nn.functional.pad(x[:, :, ::2, ::3], (0, 0, 0, 0, 11, 5))).relu().mean((2, 3))


class Every(nn.Module):
    """Slices and pads of a signal, joined, activated, and read by a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv1d(8, 32, 1), nn.Conv1d(35, 16, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.pad(self.one(x)[..., ::2], (0, 0, 3, 0))[:, :, ::3]
        return self.two(nn.functional.hardtanh(x, -0.3, 0.4))


MODELS: dict[str, tuple[type[nn.Module], tuple[int, ...]]] = {
    "resnet": (ResNet, (3, 21, 19)),
    "mobile": (Mobile, (8, 9, 12)),
    "wave": (Wave, (16, 31)),
    "two": (Two, (8, 6, 7)),
    "concat": (Concat, (8, 7, 6)),
    "late": (Late, (8, 6, 5)),
    "ceiling": (Ceiling, (8, 22, 18)),
    "shortcut": (Shortcut, (3, 11, 13)),
    "every": (Every, (8, 37)),
}


def compiled(name: str, calibrated: bool = True, **options: Any) -> hc.CompiledModel:
    make, shape = MODELS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = make().eval()
    inputs = normal(*shape)
    calibration = [inputs(16), inputs(9)] if calibrated else None
    return hc.compile(model, inputs(2), calibration=calibration, **options)


def selection(model: hc.CompiledModel) -> Selection:
    return select(model.graph_module, model.compute)


def described(found: Selection) -> list[list[tuple[Any, ...]]]:
    """(kind, source, other, activation) of each step, tensors by their numbers."""
    chains = []
    for chain in found.chains:
        number = {node: i for i, node in enumerate(chain.tensors)}
        chains.append(
            [
                (s.kind, number[s.source], None if s.other is None else number[s.other], s.activation)
                for s in chain.steps
            ]
        )
    return chains


def test_a_residual_network_is_one_chain() -> None:
    found = selection(compiled("resnet", calibrated=False, verify=False))
    none, relu = Activation.NONE, Activation.RELU
    (steps,) = described(found)
    assert steps == [
        (CONV, 0, None, relu),
        (Kind.MAX_POOL, 1, None, none),
        (CONV, 2, None, relu),
        (CONV, 3, None, none),
        (CONV, 2, 4, relu),  # the shortcut runs last, and takes the other branch as its residual
        (CONV, 5, None, relu),
        (CONV, 6, 5, relu),
        (AVERAGE, 7, None, none),
    ]
    assert [node.name for node in found.chains[0].outputs] == ["adaptive_avg_pool2d"]


def test_every_activation_is_taken_into_its_convolution() -> None:
    (steps,) = described(selection(compiled("mobile", calibrated=False, verify=False)))
    names = "HARD_SWISH CLIP NONE SILU GELU GELU_TANH CLIP NONE CLIP NONE NONE NONE".split()  # noqa: SIM905
    assert [step[3].name for step in steps] == names
    assert steps[2][2] == 0, "the input of the chain is a residual too"


def test_pools_that_round_up_stay_in_the_chain() -> None:
    (chain,) = selection(compiled("ceiling", calibrated=False, verify=False)).chains
    windows = [step.window.after for step in chain.steps if step.window and step.kind is not CONV]
    assert windows == [(1, 1), (1, 1), (2, 1)]
    assert not any(step.includes_padding for step in chain.steps)


def test_a_shortcut_without_weights_stays_in_the_chain() -> None:
    model = compiled("shortcut")
    (chain,) = selection(model).chains
    stem, _, shortcut, _, _ = chain.steps
    assert [step.kind for step in chain.steps] == [CONV, CONV, Kind.SUBSAMPLE, CONV, AVERAGE]
    assert shortcut.source is stem.output and chain.steps[3].other is shortcut.output
    assert shortcut.subsample == Subsample((2, 3), 11, 5)
    assert model.ranges.of[shortcut.output.name] == model.ranges.of[stem.output.name], "its levels are kept"


def test_slices_and_pads_that_follow_each_other_are_one_step() -> None:
    (chain,) = selection(compiled("every")).chains
    assert [step.kind for step in chain.steps] == [CONV, Kind.SUBSAMPLE, CONV]
    assert chain.steps[1].subsample == Subsample((6,), 3, 0)
    assert chain.steps[1].activation is Activation.CLIP


def test_what_is_no_step_ends_a_chain() -> None:
    first, second = described(selection(compiled("concat", calibrated=False, verify=False)))
    assert first == [(CONV, 0, None, Activation.RELU), (CONV, 1, None, Activation.NONE)]
    assert second == [(CONV, 0, 1, Activation.NONE), (CONV, 2, None, Activation.NONE)]


class Single(nn.Module):
    """Near misses: one convolution alone, two side by side; between two a batch norm, or a pool that counts its
    padding, but not what `ceil_mode` adds, or one that reaches a whole kernel beyond the image; or a slice or a pad
    that is more than a subsampling, or nothing.
    """

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.one, self.two = nn.Conv2d(8, 32, 3), nn.Conv2d(8 if how == "beside" else 32, 32, 3)
        self.norm = nn.BatchNorm2d(32)

    def forward(self, x: Tensor) -> Any:
        match self.how:
            case "alone":
                return self.one(x).relu().mean((2, 3))
            case "beside":
                return self.one(x).relu(), self.two(x)
            case "norm":
                return self.two(self.norm(self.one(x).relu()))
            case "counted":
                return self.two(nn.functional.avg_pool2d(self.one(x), 3, 2, padding=1, ceil_mode=True))
            case "beyond":
                return self.two(nn.functional.max_pool2d(self.one(x), 2, 3, dilation=3, ceil_mode=True))
        return self.two(BETWEEN[self.how](self.one(x)))


pad = nn.functional.pad
BETWEEN: dict[str, Callable[[Tensor], Tensor]] = {
    "pad of pixels": lambda x: pad(x, (1, 1, 0, 0)),
    "pad of both": lambda x: pad(x[:, 4:], (0, 0, 1, 0, 2, 2)),
    "fewer channels": lambda x: pad(pad(x, (0, 0, 0, 0, 2, 0)), (0, 0, 0, 0, 0, -2)),
    "ones": lambda x: pad(x[:, 4:], (0, 0, 0, 0, 2, 2), value=1.0),
    "mirrored": lambda x: pad(x, (0, 0, 0, 0), mode="reflect")[:, :, 1:],
    "from the second": lambda x: x[:, :, 1::2],
    "up to the last": lambda x: x[:, :, :-1:2],
    "every second channel": lambda x: torch.cat([x[:, ::2], x[:, ::2]], 1),
    "all": lambda x: x[:, :, :, :],
}


@pytest.mark.parametrize("how", ["alone", "beside", "norm", "counted", "beyond", *BETWEEN])
def test_no_chain(how: str) -> None:
    model = hc.compile(Single(how), (torch.randn(2, 8, 10, 10),), verify=False)
    assert not selection(model).chains
    assert model.ranges.of == {}


def test_float_has_no_chain(tmp_path: Path) -> None:
    model = compiled("resnet", compute="float")
    assert not selection(model).chains and model.rounding_error is None
    model.export_onnx(tmp_path / "m.onnx")
    assert "Chain" not in {node.op_type for node in onnx.load(str(tmp_path / "m.onnx")).graph.node}


class Hidden(nn.Module):
    """Writes in place to what is read again."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.one(x)
        view = y.view(y.shape)
        z = self.two(nn.functional.relu_(y))
        return z + view


def test_an_overwritten_value_that_is_read_again_prevents_chains(tmp_path: Path) -> None:
    model = hc.compile(Hidden(), (torch.randn(2, 8, 5, 5),))
    assert not selection(model).chains
    model.export_onnx(tmp_path / "m.onnx")


@pytest.mark.parametrize("calibrated", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_the_file_runs_everywhere(name: str, calibrated: bool, tmp_path: Path) -> None:
    """In stock ONNX Runtime it is the graph in fp32; with our library, the graph with its activations rounded."""
    model = compiled(name, calibrated)
    path = tmp_path / "m.onnx"
    model.export_onnx(path)
    onnx.checker.check_model(str(path), full_check=True)
    assert any(node.op_type == "Chain" for node in onnx.load(str(path)).graph.node)
    for batch in (1, 5):
        (x,) = normal(*MODELS[name][1])(batch)
        with torch.no_grad():
            wanted = as_list(model(x))
        (int8,) = sweep(rounded(model.graph_module, "int8", model.ranges.of), [(x,)])
        for exact, near, stock, ours in zip(
            wanted, int8, run(ort.InferenceSession(path), x), run(hcrt.session(path), x), strict=True
        ):
            assert relative(stock, exact) <= 2 * rounding(model)
            cost = relative(near, exact)
            assert 0 < cost < 0.1
            # the same integers, but for sums in fp32 that end on the other side of a half: a few in a thousand
            assert relative(ours, near) <= 0.3 * cost


def as_list(outputs: Any) -> list[Tensor]:
    return list(outputs) if isinstance(outputs, tuple) else [outputs]


def run(session: ort.InferenceSession, x: Tensor) -> list[Any]:
    return list(session.run(None, {session.get_inputs()[0].name: x.numpy()}))


@pytest.mark.parametrize("name", ["mobile", "wave", "two", "shortcut", "every"])
def test_the_attributes_tell_an_executor_everything(name: str, tmp_path: Path) -> None:
    """Against the steps in numpy, from the file alone."""
    model = compiled(name)
    model.export_onnx(tmp_path / "m.onnx")
    proto = onnx.load(str(tmp_path / "m.onnx"))
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    node = next(node for node in proto.graph.node if node.domain == DOMAIN)
    given = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
    (x,) = normal(*MODELS[name][1])(3)
    wanted = chain_oracle.run(given, [x.numpy(), *(held[name] for name in node.input[1:])])
    for got, reference in zip(run(hcrt.session(tmp_path / "m.onnx"), x), wanted, strict=True):
        np.testing.assert_allclose(got.flatten(), reference.flatten(), atol=2 * largest_step(given))


def largest_step(attributes: dict[str, Any]) -> float:
    return float(max(attributes["tensors"][::2]))


def test_the_report_and_inspect_know_chains(tmp_path: Path) -> None:
    model = compiled("resnet")
    report = model.report()
    assert {layer.kernel for layer in report if layer.kind == "conv"} == {"Chain"}
    assert report["head"].kernel == "CodebookLinear u4_bias int8"
    assert report.rounding_error is not None and 0 < report.rounding_error < 0.1
    assert f"int8 activations: relative error {report.rounding_error:.2%}" in str(report)
    model.export_onnx(tmp_path / "m.onnx")
    contents = inspect(tmp_path / "m.onnx")
    layers = {layer.name: layer for layer in contents.layers}
    assert list(layers) == [layer.name for layer in report]
    for line in report:
        layer = layers[line.name]
        assert layer.shape == (line.shape[0], int(np.prod(line.shape[1:])))
        assert (layer.bits, layer.compute) == (4, "int8")
        assert layer.bytes == line.nbytes + 4 * line.shape[0], "codes, table, scales, and a bias"
        assert layer.op == ("CodebookLinear" if line.name == "head" else "Chain")


def test_a_difference_inside_is_named_after_what_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = compiled("concat")
    corrupt(monkeypatch, "one")
    with pytest.raises(hc.VerificationError, match="the first node that differs is relu "):
        model.export_onnx(tmp_path / "m.onnx")
