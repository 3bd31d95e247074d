"""What TVM's importer takes of a model: told in other terms where it lacks some, or named with the user's line."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional

import hashcompile as hc
from hashcompile.core.errors import ExportError
from hashcompile.verify import leaves
from tests.models import build, normal

pytest.importorskip("tvm", reason="TVM is not installed: pip install 'hashcompile[tvm]'")

import tvm
from tvm import relax

from hashcompile.lower import tvm_library
from hashcompile.lower.tvm_library import runner
from hashcompile.lower.tvm_rows import ROWS


class Odd(nn.Module):
    """Computes something that no importer knows."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        return torch.special.bessel_j0(self.layer(x))


def test_what_tvm_cannot_import_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "m.so").write_text("the old one")
    compiled = hc.compile(Odd(), normal(16)(2))
    with pytest.raises(ExportError, match=r"bessel_j0.*test_tvm_import\.py"):
        compiled.export_tvm(tmp_path / "m.so")
    assert (tmp_path / "m.so").read_text() == "the old one"


def test_what_tvm_cannot_import_is_told_before_compression() -> None:
    def batches() -> Iterator[tuple[Tensor]]:
        raise AssertionError("calibration data is read, so compression has begun")
        yield normal(16)(2)

    with pytest.raises(ExportError, match=r"aten\.special_bessel_j0\.default \(node .*test_tvm_import\.py"):
        hc.compile(Odd(), normal(16)(2), calibration=batches(), tvm=True)
    with pytest.raises(ExportError, match="bessel_j0"):
        hc.check_tvm(Odd(), normal(16)(2))
    model, inputs = build("attention")
    hc.check_tvm(model, inputs(2))


class Rare(nn.Module):
    """Computes what no importer knows, but in other terms."""

    def forward(self, x: Tensor) -> Tensor:
        pooled = functional.adaptive_max_pool2d(x.reshape(-1, 1, 4, 4), 2).flatten(1)
        return torch.ldexp(pooled, torch.tensor(3)) + x.unfold(1, 4, 4).sum(-1)


def test_what_tvm_lacks_is_told_in_other_terms(tmp_path: Path) -> None:
    compiled = hc.compile(nn.Sequential(nn.Linear(16, 16), Rare()), normal(16)(2), compute="float", tvm=True)
    compiled.export_tvm(tmp_path / "m.so")
    for batch in (1, 5):
        (got,) = runner(tmp_path / "m.so")(normal(16)(batch))
        torch.testing.assert_close(got, compiled(*normal(16)(batch)).detach(), rtol=1e-4, atol=1e-5)


class Applied(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def stored(x: Tensor) -> Tensor:
    """Values put into parts of a tensor."""
    y = torch.zeros(x.shape[0], 4, 8)
    y[:, 2] = x[:, 0].flatten(1)[:, :8]
    y[:, :, ::3] = 1
    y[:, -3:-1] *= 2
    y[y > 1] = 0.5
    return y


def moved(x: Tensor, align_corners: bool) -> Tensor:
    half = torch.tensor([[0.5, 0.1, 0.0], [0.0, 0.7, 0.2]]).expand(x.shape[0], 2, 3)
    grid = functional.affine_grid(half, list(x.shape), align_corners=align_corners)
    return functional.grid_sample(x, grid, align_corners=align_corners)


def pooled(x: Tensor, ceil_mode: bool) -> Tensor:
    return functional.avg_pool2d(x, 3, 2, 1, ceil_mode=ceil_mode, divisor_override=5)


def empty(x: Tensor) -> Tensor:
    y = torch.empty(x.shape)
    y[:, 0] = x[:, 0]
    y[:, 1:] = x[:, 1:]
    return y


def rotated(x: Tensor) -> Tensor:
    y = torch.empty_like(x)
    y[..., 0::2] = -x[..., 1::2]
    y[..., 1::2] = x[..., 0::2]
    return y


def put(x: Tensor, where: Any, values: Any) -> Tensor:
    y = x.clone()
    y[where] = values
    return y


NAN, INF = math.nan, math.inf
ALL, ENDS = slice(None), torch.tensor([-1, 0])
SOME = torch.tensor([True, False, True, False])
PUTS: tuple[tuple[Any, Any], ...] = (
    ((ALL, ENDS), 0.0),
    ((ALL, ENDS), torch.arange(2.0)[:, None, None]),
    ((ALL, torch.tensor(2)), 7.0),
    ((ALL, ALL, ENDS), torch.zeros(1, 1)),
    ((ALL, ALL, ALL, ENDS), torch.arange(2.0)),
    ((ALL, torch.tensor([[0], [1]]), ENDS), torch.arange(6.0)),
    ((ALL, ENDS, ALL, torch.tensor([1, -2])), torch.arange(6.0)),
    ((ALL, SOME), 0.5),
    ((ALL, SOME), torch.arange(6.0)),
)
PUTS_OF_THREE: tuple[tuple[Any, Any], ...] = (
    (ENDS, 0.5),
    (ENDS, torch.arange(6.0)),
    (SOME, torch.arange(6.0)),
    ((ENDS, torch.tensor([-1, 2])), torch.arange(6.0)),
    ((torch.tensor([[0], [1]]), ALL, torch.tensor([1, -2, 0])), torch.arange(3.0)[:, None]),
)


EVERY: tuple[Callable[[Tensor], Any], ...] = (
    lambda x: x[:, -1] + x[:, 1, :, :] + x.select(-2, -3).sum() + x[-1, 0],
    lambda x: x.amax((2, 3)) + x.amin((-1, -2)),
    lambda x: x.amax() + x.logsumexp(1),
    lambda x: torch.max(x, 1, keepdim=True)[0] + torch.max(x, 2)[1].unsqueeze(2),
    lambda x: torch.min(x, 1, keepdim=True)[0] + torch.min(x, 2, keepdim=True)[1],
    lambda x: functional.group_norm(x, 2, torch.arange(4.0), torch.ones(4)),
    lambda x: torch.hypot(x, x + 1) + x.kthvalue(2, dim=1, keepdim=True)[0],
    lambda x: torch.cdist(x[:, 0], x[:, 1]),
    lambda x: functional.instance_norm(x, weight=torch.arange(4.0), bias=torch.ones(4)) + x // 2,
    lambda x: functional.instance_norm(x, torch.ones(4), torch.arange(1.0, 5), use_input_stats=False),
    lambda x: x.std((1, 2), keepdim=True) + x.var((0, 3), keepdim=True) + x.argmax(2, keepdim=True) // 2,
    lambda x: (x * 10).long() // 2.5 + (x * 10).long() // 0.5 + (x * 10).round() / 10 // 0.1 + x // -0.3,
    lambda x: functional.unfold(x[:, 0], 2).sum() + functional.fold(x[0, :, 0].T[:, :2], (1, 3), (1, 2)),
    lambda x: functional.linear(x.double(), torch.ones(3, 6).double(), torch.arange(3.0).double()),
    lambda x: functional.unfold(x, (2, 3), dilation=(1, 2), padding=(1, 0), stride=(2, 1)),
    lambda x: functional.fold(functional.unfold(x, 2, padding=1), (6, 6), 2, padding=1),
    lambda x: functional.fold(functional.unfold(x, (1, 3), stride=(2, 2)), (5, 5), (1, 3), stride=(2, 2)),
    lambda x: functional.interpolate(functional.interpolate(x, size=(11, 13)), size=(7, 4)),
    lambda x: functional.interpolate(
        functional.interpolate(x, scale_factor=2), scale_factor=1.6, mode="bilinear"
    ),
    lambda x: functional.interpolate(x.flatten(2), scale_factor=1.5, mode="linear"),
    lambda x: functional.interpolate(x.unflatten(1, (2, 2)), scale_factor=1.5),
    lambda x: moved(x, align_corners=False),
    lambda x: moved(x, align_corners=True),
    lambda x: x.unfold(-1, 4, 1).unfold(2, 3, 2),
    lambda x: functional.selu(x) + functional.elu(x, 0.7) + functional.celu(x, 0.3),
    lambda x: (
        torch.baddbmm(x[:, 0], x[:, 1], x[:, 2], alpha=0.3, beta=2) + torch.add(x[:, 0], x[:, 1], alpha=3)
    ),
    lambda x: torch.addmm(torch.ones(6), x[:, 0, 0], torch.ones(6, 6), alpha=0.3, beta=2),
    lambda x: x[:, 0, :, :1] @ x[:, 1, :1] * 0.3 + x[:, 0],  # sums of one term
    lambda x: pooled(x, ceil_mode=False) + pooled(x[:, :, :-1, :-1], ceil_mode=True),
    stored,
    lambda x: x.narrow(-1, 1, 5) + x.diff(),
    lambda x: (((x > 0) != 0) == (x < 1)).float() + ((x > 0) != (x > 1)) * 0.5 + ((x > 0) < (x > 1)),
    lambda x: (
        torch.count_nonzero(x > 1, 1) + (x > 0).cumsum(1)[:, -1] + (x > 0).amax(1) + ((x > 0) + (x < 1))[:, 0]
    ),
    lambda x: (x * 2, x.shape[0]),
    lambda x: torch.div(x, 3, rounding_mode="trunc") + torch.div(x, 3, rounding_mode="floor"),
    lambda x: (
        torch.div((x * 9).long(), 2, rounding_mode="trunc")
        + torch.div((x * 9).int(), -3, rounding_mode="floor")
    ),
    lambda x: torch.where(x > 0, x, torch.arange(6)) + torch.cat([(x[:, :2] * 3).int(), x[:, 2:]], 1),
    lambda x: torch.zeros_like(x).scatter_add(1, (x * 3).long().clamp(0, 3.0).long(), x),
    lambda x: torch.cat([*torch.std_mean(x, 1), *torch.var_mean(x, 1, correction=0)]),
    lambda x: functional.bilinear(x, x, torch.arange(108.0).view(3, 6, 6) / 50, torch.ones(3)),
    lambda x: x.erfc() + x.exp2() + (((x * 9).int() << 2) >> 1) + 0.5 * (x * 9).long() + (x * 9).int() / 2,
    lambda x: torch.sort((x * 2).round(), stable=True, dim=1, descending=True)[1],
    lambda x: torch.stack(
        [(x / 1e4).log1p(), (x / 1e4).expm1(), (1 + x.abs()).log1p() / 1e4, x.expm1() / 1e4]
    ),
    lambda x: x[:, torch.tensor([-1, 0])] + x[:, torch.tensor([[0], [1]]), :, torch.tensor([1, -2])].sum(),
    lambda x: torch.stack([x.norm(p=p, dim=1) for p in (0, 1, float("inf"), -float("inf"))]),
    lambda x: x * x.shape[0] + x / x.shape[0],
    lambda x: functional.rrelu(x) + functional.pad(x[:, :, 1:-1, 1:-1], (1, 1, 1, 1), mode="circular"),
    lambda x: (
        (x + torch.full((6, 6), -INF).triu(1)).softmax(-1),
        torch.full((x.shape[0], 2), NAN),
        torch.full((2,), True),
        torch.full((x.shape[0],), x.shape[0]),
        torch.full_like(x, INF),
    ),
    lambda x: (
        empty(x),
        rotated(x),
        x.new_empty(x.shape).fill_(2),
        torch.empty_strided((2, 3), (1, 2)).fill_(1),
    ),
    lambda x: (x * 2, None, {"more": x + 1, "none": None}),
    lambda x: torch.cdist(x[:, 0], x[:, 0], p=0.0),
    lambda x: [put(x, *each) for each in PUTS],
    lambda x: [put(x[0], *each) for each in PUTS_OF_THREE],
    lambda x: (
        torch.zeros(x.shape[0], 6).index_put((torch.arange(x.shape[0]), x[:, 0, 0].argmax(1)), x[:, 0, 0, 0]),
        x.index_put((torch.tensor([0, 0]), torch.tensor([1, 1])), torch.ones(2, 1, 1), accumulate=True),
        x.index_add(1, torch.tensor([0, 0, 2]), x[:, :3]),
    ),
    lambda x: torch.ops.aten.index.Tensor(x, [None, torch.tensor(2)]),
    lambda x: (x[:, 0, 0, :1].var(1), x[:, 0, 0, :2].var(1, correction=4), x[:, 0, 0, :1].std(1)),
    lambda x: torch.cat([torch.empty(0), x, torch.empty(0)]),
    lambda x: torch.zeros_like(x).scatter_add(1, (x[:, :3, :2] > 0).long(), x),
    lambda x: torch.zeros_like(x).scatter(1, (x[:, :3, :2] > 9).long() + torch.arange(3)[:, None, None], x),
    lambda x: [
        torch.div(x > 0, 2, rounding_mode="trunc"),
        torch.div((x * 9).long(), x.shape[0], rounding_mode="trunc"),
        (x > 0) // 2,
        (x * 9).long() % 2.5,
        torch.remainder(5, (x * 9).long().abs() + 1),
    ],
    lambda x: [f((x * 9).long().abs()) for f in (torch.log1p, torch.exp2, torch.erfc, torch.exp, torch.tanh)],
    lambda x: (torch.max(x > 0, 1), torch.min(x > 0, 1)),
)


@pytest.mark.parametrize("function", EVERY)
def test_what_tvm_cannot_say_of_a_symbolic_batch_it_is_told(
    function: Callable[[Tensor], Any], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    compiled = hc.compile(Applied(function).eval(), normal(4, 6, 6)(3), hc.PruneChannels(0), compute="float")
    compiled.export_tvm(tmp_path / "m.so")
    for batch in (1, 5):
        got = runner(tmp_path / "m.so")(normal(4, 6, 6)(batch))
        wanted = leaves(compiled(*normal(4, 6, 6)(batch)))
        wanted = [each.detach() for each in wanted]
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5, equal_nan=True)


# Rows of two numbers each, and what PyTorch computes of them; TVM by itself forgets infinities and NaN in many ways.
LOW, HIGH = torch.finfo(torch.float32).min, torch.finfo(torch.float32).max
BOUNDS = [
    [-INF, -INF],
    [-INF, LOW],
    [INF, INF],
    [INF, HIGH],
    [3, 2],
    [-INF, 4],
    [INF, -INF],
    [NAN, -INF],
    [NAN, 1],
]
PAIRS = [
    *(
        [1, 0.1],
        [2, 0.1],
        [-1, 0.1],
        [7.25, -2],
        [-7.25, 2],
        [6, 3],
        [-6, 3],
        [0.3, 0.1],
        [5, INF],
        [-5, INF],
    ),
    *([5, -INF], [1, 0], [-1, 0], [0, 0], [INF, 2], [NAN, 2], [2, NAN], [INF, NAN], [NAN, -INF], [0, -3]),
    *([8388609, 1], [8388611, 1], [16777215, 1], [3e9, 7], [1e20, 1e20], [3e-30, 4e-30], [-3, 4], [1e20, 1]),
]
SPECIAL: tuple[tuple[Any, Callable[[Tensor], Any]], ...] = (
    (
        BOUNDS,
        lambda x: (x.amax(1), x.amin(1, keepdim=True), x.max(1)[0], x.min(1)[0], x.double().amax(1)),
    ),
    ([[-INF, -INF]], lambda x: (x.max(), x.amax())),
    ([[INF, INF]], lambda x: (x.min(), x.amin())),
    (
        PAIRS,
        lambda x: (x[:, 0] % x[:, 1], x % 0.1, x % INF, x % -2.0, x.double() % 0.3, torch.remainder(2.5, x)),
    ),
    (PAIRS, lambda x: (x[:, 0] // x[:, 1], x // 0.0, x // 1.0, x // -2.0, x // INF, x.double() // 0.3)),
    (PAIRS, lambda x: torch.hypot(x[:, 0], x[:, 1])),
    (
        BOUNDS,
        lambda x: (
            x.isnan(),
            (x != x).sum(1),
            x == x,
            torch.where(x != 1, 0.0, x),
            torch.logical_not(x < 1),
            x.nan_to_num(),
            x.erfc(),
        ),
    ),
    ([[i / 40, i / 37] for i in range(-240, 360)], lambda x: (x.erfc(), x.double().erfc())),
)


@pytest.mark.parametrize(("rows", "function"), SPECIAL)
def test_special_numbers_are_computed_as_pytorch_does(
    rows: list[list[float]], function: Callable[[Tensor], Any], tmp_path: Path
) -> None:
    """Of floats, to few units in the last place; erfc to that of its tail, too, which is far smaller than 1."""
    given = torch.tensor(rows, dtype=torch.float32)
    example = (torch.ones_like(given),)
    hc.compile(Applied(function), example, hc.PruneChannels(0), compute="float").export_tvm(tmp_path / "m.so")
    got, wanted = runner(tmp_path / "m.so")((given,)), leaves(function(given))
    for value, reference in zip(got, wanted, strict=True):
        exact = 1e-14 if reference.dtype == torch.float64 else 2e-6
        torch.testing.assert_close(value, reference, rtol=exact, atol=1e-37, equal_nan=True)


REFUSED: tuple[tuple[str, Callable[[Tensor], Any]], ...] = (
    ("max_pool2d_with_indices", lambda x: functional.max_pool2d(x, 2, return_indices=True)),
    (
        "_upsample_bilinear2d_aa",
        lambda x: functional.interpolate(x, size=(4, 5), mode="bilinear", antialias=True),
    ),
    (r"bfloat16.*aten\._to_copy", lambda x: x.bfloat16().float() * 2),
    ("logcumsumexp", lambda x: x.logcumsumexp(1)),
)


@pytest.mark.parametrize(("name", "function"), REFUSED)
def test_what_tvm_would_compute_otherwise_is_refused_with_its_line(
    name: str, function: Callable[[Tensor], Any]
) -> None:
    with pytest.raises(ExportError, match=rf"{name}.* \(node \S+\) from .*test_tvm_import\.py"):
        hc.check_tvm(Applied(function), normal(4, 6, 6)(2))


class Positions(nn.Module):
    """Reads as many rows of a table as there are tokens, at most 16."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(16, 8)
        self.register_buffer("places", torch.arange(16)[None])

    def forward(self, x: Tensor) -> Tensor:
        return x + self.table(self.places[:, : x.shape[1]])


def test_a_part_of_known_size_has_that_size(tmp_path: Path) -> None:
    torch.manual_seed(0)
    length = torch.export.Dim("length", min=2, max=16)
    shapes = ({0: torch.export.Dim("batch"), 1: length},)
    given = normal(5, 8)(3)
    compiled = hc.compile(
        Positions().eval(), normal(4, 8)(2), hc.PruneChannels(0), dynamic_shapes=shapes, compute="float"
    )
    compiled.export_tvm(tmp_path / "m.so")
    (got,) = runner(tmp_path / "m.so")(given)
    torch.testing.assert_close(got, compiled(*given).detach())


def test_a_place_may_be_told_by_sizes(tmp_path: Path) -> None:
    shapes = ({0: torch.export.Dim("batch"), 1: torch.export.Dim("length", min=2)},)
    model = Applied(lambda x: (x[:, x.shape[1] - 1], x[x.shape[0] - 1], x[:, -x.shape[1]]))
    compiled = hc.compile(model, normal(5, 8)(3), hc.PruneChannels(0), dynamic_shapes=shapes, compute="float")
    compiled.export_tvm(tmp_path / "m.so")
    given = normal(7, 8)(2)
    torch.testing.assert_close(runner(tmp_path / "m.so")(given), list(compiled(*given)))


class Strange(nn.Module):
    """Asks an operator that importers know for something that they do not."""

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(-1, 4, 4).to(torch.complex64).abs()


def test_an_operator_that_is_known_by_name_only_is_named_with_its_line() -> None:
    with pytest.raises(
        ExportError, match=r"TVM cannot import aten\.\S+ \(node \S+\) from .*test_tvm_import\.py"
    ):
        hc.check_tvm(Strange(), normal(16)(2))


def test_what_tvm_imports_but_cannot_compile_is_told_before_compression_with_its_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def batches() -> Iterator[tuple[Tensor]]:
        raise AssertionError("calibration data is read, so compression has begun")
        yield normal(16)(2)

    def infinite(node: fx.Node, importer: Any) -> Any:
        """What TVM has no code for."""
        x = importer.env[node.args[0]]
        return importer.block_builder.emit(relax.op.full(x.ty.shape, relax.const(math.nan, "float32")))

    monkeypatch.setitem(ROWS, "sin.default", infinite)
    model = Applied(lambda x: x.sin() + 1)
    line = r"could not compile aten\.sin\.default \(node sin\) from .*test_tvm_import\.py"
    with pytest.raises(ExportError, match=line):
        hc.compile(model, normal(16)(2), calibration=batches(), tvm=True)


def test_what_tvm_computes_otherwise_is_told_before_compression(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(node: fx.Node, importer: Any) -> Any:
        return importer.block_builder.emit(relax.op.negative(importer.env[node.args[0]]))

    monkeypatch.setitem(ROWS, "sin.default", wrong)
    line = r"the first node that differs is sin .*from .*test_tvm_import\.py"
    for function in (lambda x: x.sin() + 1, lambda x: x.exp().add_(1).sin() + 1):
        with pytest.raises(hc.VerificationError, match=line):
            hc.check_tvm(Applied(function), normal(16)(2))


def test_a_value_among_several_is_named_when_it_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    def smallest(node: fx.Node, importer: Any) -> Any:
        given = importer.env[node.args[0]]
        return importer.block_builder.emit(
            relax.op.topk(given, 2, 1, ret_type="both", largest=False, dtype="int64")
        )

    monkeypatch.setitem(ROWS, "topk.default", smallest)
    with pytest.raises(
        hc.VerificationError, match=r"in the output of mul, .*first node that differs is getitem_1 "
    ):
        hc.check_tvm(Applied(lambda x: x.topk(2, 1)[1] * 2), normal(16)(2))


def test_an_error_of_the_explanation_leaves_the_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise TypeError("broken")

    test_what_tvm_computes_otherwise_is_told_before_compression(monkeypatch)
    monkeypatch.setattr(tvm_library, "values_inside", broken)
    with pytest.raises(
        hc.VerificationError, match=r"differs from the compressed graph.*cannot be told: broken"
    ):
        hc.check_tvm(Applied(lambda x: x.sin() + 1), normal(16)(2))


def test_a_library_may_return_bfloat16() -> None:
    values = torch.tensor([1.5, -2.0])
    given = tvm.runtime.tensor(values.numpy().astype("bfloat16"))
    assert torch.equal(tvm_library.read(given), values.bfloat16())
