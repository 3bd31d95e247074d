"""hc.Wide through the compiler: configs, refusals, recall, files, verification, training."""

from __future__ import annotations

import itertools
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import hashcompile as hc
import hashcompile_runtime as hcrt
from hashcompile.core.encoded import encoded_weights
from hashcompile.core.rows import RowView
from hashcompile.core.storage import Storage
from hashcompile.inspector import inspect
from hashcompile.passes.wide import WideWeight
from hashcompile.passes.wide.codes import packed_rows, unpacked_rows
from tests.oracle import DOMAIN, relative, run, stock

CLASSES = 400


class Classifier(nn.Module):
    """Classes are near the inputs that they are right for, and of many sizes."""

    def __init__(self, behind: nn.Module | None = None, bias: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.hidden = nn.Linear(24, 48)
        self.head = nn.Linear(48, CLASSES, bias=bias)
        self.behind = behind or nn.Identity()
        with torch.no_grad():
            self.head.weight *= 4 + 4 * torch.rand(CLASSES, 1)

    def forward(self, x: Tensor) -> Any:
        return self.behind(self.head(self.hidden(x).relu()))


class Best(nn.Module):
    def forward(self, x: Tensor) -> Any:
        values, places = torch.softmax(x, -1).topk(3, -1)
        return values, places, x.argmax(-1)


def inputs(count: int, seed: int = 1) -> Tensor:
    return torch.randn(count, 24, generator=torch.Generator().manual_seed(seed))


def compiled_of(
    model: nn.Module, recall: float = 0.95, compute: Any = "float", **more: Any
) -> hc.CompiledModel:
    method = {"hidden": hc.Codebook(8), "head": hc.Wide(recall, classes=100, **more)}
    return hc.compile(model.eval(), (inputs(4),), method, [(inputs(1500),)], compute=compute)


def code_of(compiled: hc.CompiledModel) -> WideWeight:
    code = encoded_weights(compiled.graph_module)["head.weight"]
    assert isinstance(code, WideWeight)
    return code


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"recall": 0}, "a share above 0 and below 1"),
        ({"recall": 1}, "recall=1"),
        ({"recall": float("nan")}, "recall=nan"),
        ({"recall": True}, "recall=True"),
        ({"bits": 12}, "a multiple of 8"),
        ({"bits": 0}, "bits=0"),
        ({"bits": 8192}, "up to 4096"),
        ({"bits": 64.0}, "bits=64.0"),
        ({"code_bits": 3}, "code_bits=3"),
        ({"code_bits": True}, "1, 2, 4 or 8"),
        ({"classes": 1}, "from 2 on"),
        ({"seed": None}, "a whole number"),
    ],
)
def test_bad_configs_are_refused_at_birth(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(hc.ConfigError) as caught:
        hc.Wide(**arguments)
    assert message in str(caught.value) and "Wide(" in str(caught.value)


def test_without_data_there_is_no_recall() -> None:
    with pytest.raises(hc.ConfigError, match="recall is measured on calibration data"):
        hc.compile(Classifier(), (inputs(2),), {"head": hc.Wide(classes=100)})


class Mixed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.tanh()


@pytest.mark.parametrize(
    ("behind", "reason"),
    [
        (nn.Identity(), None),
        (nn.Softmax(-1), None),
        (nn.LogSoftmax(1), None),
        (Best(), None),
        (nn.Unflatten(1, (20, 20)), None),
        (Mixed(), "not final"),
        (nn.Linear(CLASSES, 3), "not final"),
        (nn.Softmax(0), "not final"),
        (nn.Sequential(nn.Unflatten(1, (20, 20)), nn.Softmax(-1)), "not final"),
    ],
)
def test_only_a_choice_may_follow(behind: nn.Module, reason: str | None) -> None:
    plan = compiled_of(Classifier(behind)).plan
    assert (plan["head"].reason or "").startswith(reason or "")
    assert (plan["head"].config is None) == (reason is not None)


def test_layers_that_are_not_wide_stay() -> None:
    model = nn.Sequential(nn.Embedding(500, 30), nn.Linear(30, 50))
    plan = hc.compile(
        model, (torch.arange(50).view(2, 25),), hc.Wide(classes=100), [(torch.arange(500).view(20, 25),)]
    ).plan
    assert plan["0"].reason == (
        "it is a layer of the kind embedding: only outputs of linear layers can be left out"
    )
    assert plan["1"].reason == "not wide: 50 classes, fewer than 100"


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("recall", [0.8, 0.99])
def test_recall_is_what_was_asked_for_on_unseen_inputs(recall: float, bias: bool) -> None:
    """Of 3,000 inputs; the threshold itself comes from 750, so 4 standard deviations of both."""
    model = Classifier(bias=bias)
    code = code_of(compiled_of(model, recall))
    x = inputs(3000, seed=2)
    with torch.no_grad():
        hidden = model.hidden(x).relu()
        best = model.head(hidden).argmax(1)
        near = code.candidates(hidden)
    spread = (recall * (1 - recall) * (1 / 3000 + 1 / 750)) ** 0.5
    got = float(near.gather(1, best[:, None]).double().mean())
    assert abs(got - recall) < 4 * spread + 2 / 750
    assert code.measured.share == pytest.approx(float(near.double().mean()), rel=0.1)
    assert code.measured.recall == pytest.approx(got, abs=4 * spread + 4 / 750)
    assert code.measured.share < (0.2 if recall == 0.8 else 0.6)


def test_more_bits_compute_fewer_rows() -> None:
    shares = [code_of(compiled_of(Classifier(), 0.95, bits=bits)).measured.share for bits in (32, 128, 512)]
    assert shares[0] > 1.3 * shares[1] > 1.3**2 * shares[2]


@pytest.mark.parametrize(
    ("behind", "compute", "code_bits"),
    [
        (nn.Identity(), "float", None),
        (nn.Identity(), "float", 1),
        (nn.Identity(), "float", 8),
        (nn.Identity(), "int8", None),
        (nn.Identity(), "int8", 4),
        (nn.Identity(), "bf16", 2),
        (nn.LogSoftmax(-1), "float", None),
        (nn.LogSoftmax(-1), "bf16", 4),
        (Best(), "int8", None),
        (Best(), "float", 4),
    ],
)
def test_the_file_says_all_and_our_kernel_the_candidates(
    behind: nn.Module, compute: Any, code_bits: int | None, tmp_path: Path
) -> None:
    model = Classifier(behind)
    compiled = compiled_of(model, compute=compute, code_bits=code_bits)
    for check in compiled.export_onnx(tmp_path / "m.onnx"):
        assert check.error <= check.tolerance
    proto = onnx.load(tmp_path / "m.onnx")
    operator = "WideCodebookLinear" if code_bits else "WideLinear"
    assert operator in {node.op_type for node in proto.graph.node if node.domain == DOMAIN}
    x = inputs(64, seed=3)
    with torch.no_grad():
        wanted = compiled(x)
    feeds = {"x": x.numpy()}
    portable = stock(tmp_path / "m.onnx").run(None, feeds)
    ours = hcrt.session(tmp_path / "m.onnx").run(None, feeds)
    if isinstance(behind, Best):
        assert np.array_equal(portable[2], wanted[2].numpy())
        assert (ours[2] == portable[2]).mean() > 0.85
        return
    assert relative(portable[0], wanted) < 1e-5
    shown = np.isfinite(ours[0])
    assert 0.01 < shown.mean() < 0.5
    if isinstance(behind, nn.Identity):
        assert relative(ours[0][shown], wanted[torch.from_numpy(shown)]) < {"float": 1e-5}.get(compute, 0.02)
        with torch.no_grad():
            near = code_of(compiled).candidates(model.hidden(x).relu())
        assert (near.numpy() == shown).mean() > 0.98


@pytest.mark.parametrize(
    ("code_bits", "kernel"), [(None, "WideLinear bias"), (4, "WideCodebookLinear u4_bias")]
)
def test_every_number_is_in_the_report_and_in_the_files(
    code_bits: int | None, kernel: str, tmp_path: Path
) -> None:
    compiled = compiled_of(Classifier(), code_bits=code_bits)
    code = code_of(compiled)
    (line,) = [line for line in compiled.report() if line.name == "head"]
    assert line.kernel == kernel and line.remark is not None
    assert f"recall of the best {code.measured.recall:.2%}" in line.remark
    assert line.remark.replace(" ", "") in str(compiled.report()).replace(" ", "").replace("\n", "")
    assert line.nbytes == sum(value.nbytes for value in code.storage().values())
    compiled.export_onnx(tmp_path / "m.onnx")
    compiled.save(tmp_path / "m.hc")
    loaded = hc.load(tmp_path / "m.hc")
    assert str(loaded.report()) == str(compiled.report()) and loaded.plan == compiled.plan
    with torch.no_grad():
        assert torch.equal(loaded(inputs(5)), compiled(inputs(5)))
    for path in (tmp_path / "m.onnx", tmp_path / "m.hc"):
        (found,) = [layer for layer in inspect(path).layers if layer.name == "head"]
        assert found.shape == (CLASSES, 48)
        assert found.bytes == line.nbytes + (4 * CLASSES if path.suffix == ".onnx" else 0)  # the bias


@pytest.mark.parametrize(
    ("share", "verdict"),
    [(0.01, "fewer than the 12.5%"), (0.3, "more than the 12.5%"), (0.9, "does not pay")],
)
def test_the_verdict(share: float, verdict: str) -> None:
    code = code_of(compiled_of(Classifier(), bits=8))
    code.measured = type(code.measured)(0.9, 0.9, share, 10, code.measured.weights)
    assert verdict in code.remark()


ASKED = "asked for: calibrate with more inputs, or ask for a higher recall"


def test_the_report_says_that_recall_is_below_what_was_asked_for(tmp_path: Path) -> None:
    """A threshold from six inputs is none for the six others."""
    method = {"head": hc.Wide(0.99, bits=64, classes=100)}
    compiled = hc.compile(Classifier().eval(), (inputs(4),), method, [(inputs(12),)], compute="float")
    code = code_of(compiled)
    assert code.measured.recall < 0.9
    assert f" on 6 inputs, below the 0.99 {ASKED}; for one input" in code.remark()
    compiled.save(tmp_path / "m.hc")
    assert code_of(hc.load(tmp_path / "m.hc")).remark() == code.remark()


@pytest.mark.parametrize(("recall", "below"), [(0.949, True), (0.95, False), (0.96, False)])
def test_recall_that_was_reached_needs_no_word(recall: float, below: bool) -> None:
    code = code_of(compiled_of(Classifier(), 0.95, bits=64))
    code.measured = replace(code.measured, recall=recall)
    assert (ASKED in code.remark()) == below
    told = {name: value for name, value in asdict(code.measured).items() if name != "asked"}
    code.measured = type(code.measured)(**told)
    assert ASKED not in code.remark(), "a file of before does not tell"


@pytest.mark.parametrize("code_bits", [None, 4])
def test_training_moves_the_weight_and_ends_the_recall(code_bits: int | None, tmp_path: Path) -> None:
    compiled = compiled_of(Classifier(), code_bits=code_bits)
    graph = compiled.graph_module.train()
    optimizer = torch.optim.SGD(graph.parameters(), lr=0.1)
    before = code_of(compiled).rows().detach().clone()
    nn.functional.cross_entropy(graph(inputs(64)), torch.arange(64)).backward()
    optimizer.step()
    graph.eval()
    assert not torch.equal(code_of(compiled).rows(), before)
    assert "recall is not known" in str(compiled.report())
    compiled.export_onnx(tmp_path / "m.onnx")
    x = inputs(8)
    with torch.no_grad():
        assert relative(run(stock(tmp_path / "m.onnx"), (x,)), compiled(x)) < 1e-5


@pytest.mark.parametrize("code_bits", [None, 4])
def test_a_weight_that_is_an_embedding_too(code_bits: int | None, tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.embed, self.head = nn.Embedding(CLASSES, 32), nn.Linear(32, CLASSES, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, ids: Tensor) -> Tensor:
            return self.head(self.embed(ids).mean(1))

    ids = torch.randint(0, CLASSES, (800, 3), generator=torch.Generator().manual_seed(0))
    method = hc.Wide(0.9, classes=100, code_bits=code_bits)
    compiled = hc.compile(Tied(), (ids[:3],), method, [(ids,)], compute="float")
    compiled.export_onnx(tmp_path / "m.onnx")
    proto = onnx.load(tmp_path / "m.onnx")
    size = (code_bits or 32) * 32 * CLASSES // 8
    weights = [
        tensor for tensor in proto.graph.initializer if len(tensor.raw_data) in (size, 4 * 32 * CLASSES)
    ]
    assert len(weights) == 1, "the weight is stored once"


def test_a_kernel_that_computes_other_rows_is_found_out(tmp_path: Path) -> None:
    compiled = compiled_of(Classifier())
    code_of(compiled).sketches.copy_(~code_of(compiled).sketches)
    honest = WideWeight.candidates
    try:
        WideWeight.candidates = lambda self, x: ~honest(self, x)  # type: ignore[method-assign]
        with pytest.raises(hc.VerificationError, match="computes other outputs than its index asks for"):
            compiled.export_onnx(tmp_path / "m.onnx")
    finally:
        WideWeight.candidates = honest  # type: ignore[method-assign]
    assert not (tmp_path / "m.onnx").exists()


def test_bad_data_are_named() -> None:
    model = Classifier()
    model.hidden.weight.data.fill_(3e38)
    with pytest.raises(hc.CalibrationError, match="layer head: calibration gave inputs that are NaN"):
        hc.compile(model, (inputs(2),), {"head": hc.Wide(classes=100)}, [(inputs(9),)])
    with pytest.raises(hc.CalibrationError, match="layer head: calibration shows fewer than two inputs"):
        hc.compile(Classifier(), (inputs(2),), {"head": hc.Wide(classes=100)}, [(inputs(1),)])


@pytest.fixture(scope="module", params=[None, 4])
def small(request: pytest.FixtureRequest) -> WideWeight:
    return code_of(compiled_of(Classifier(), bits=64, code_bits=request.param))


@pytest.mark.parametrize("part", range(7))
@pytest.mark.parametrize("change", [lambda t: t[:-1], lambda t: t.double(), lambda t: None])
def test_a_damaged_one_is_refused(small: WideWeight, part: int, change: Any) -> None:
    code, names = small, [*small.storage()]
    name = names[part % len(names)]
    storage = {key: change(value) if key == name else value for key, value in code.storage().items()}
    storage = {key: value for key, value in storage.items() if value is not None}
    with pytest.raises(hc.ArtifactError):
        WideWeight.restore(RowView((CLASSES, 48)), code.describe(), Storage(storage))
    wrong = {**code.describe(), "measured": {"recall": 1}}
    with pytest.raises(hc.ArtifactError, match="measured"):
        WideWeight.restore(RowView((CLASSES, 48)), wrong, Storage(code.storage()))
    for bits in (3, True, "4", None):
        with pytest.raises(hc.ArtifactError, match="-bit codes"):
            WideWeight.restore(
                RowView((CLASSES, 48)), {**code.describe(), "code_bits": bits}, Storage(code.storage())
            )


@pytest.mark.parametrize("code_bits", [None, 2])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_equal_rows_and_rows_of_zeros(value: float, code_bits: int | None, tmp_path: Path) -> None:
    model = Classifier()
    model.head.weight.data.fill_(value)
    compiled = compiled_of(model, code_bits=code_bits)
    compiled.export_onnx(tmp_path / "m.onnx")
    code = code_of(compiled)
    assert code.measured.recall >= 0.95
    torch.testing.assert_close(code.rows(), model.head.weight)


def test_the_same_bytes_again(tmp_path: Path) -> None:
    for name in "ab":
        compiled_of(Classifier()).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_codes_of_rows_are_a_better_one_with_more_bits() -> None:
    """And no worse than levels at equal distances; 8 bits reach the precision of 8 bits."""
    model = Classifier()
    errors, sizes = [], []
    for bits in (1, 2, 4, 8):
        code = code_of(compiled_of(model, bits=64, code_bits=bits))
        errors.append(relative(code.rows().detach(), model.head.weight.detach()))
        sizes.append(code.nbytes)
    assert errors[3] < 0.01 < errors[2] < 0.1 < errors[1] < 0.4 < errors[0] < 0.8
    assert [size - sizes[0] for size in sizes[1:]] == [
        CLASSES * 48 * (bits - 1) // 8 + 4 * (2**bits - 2) for bits in (2, 4, 8)
    ]


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("columns", [0, 1, 7, 8, 9, 48])
def test_codes_of_rows_are_packed_row_by_row(bits: int, columns: int) -> None:
    indices = torch.randint(0, 2**bits, (5, columns), generator=torch.Generator().manual_seed(0)).byte()
    codes = packed_rows(indices, bits)
    assert codes.shape == (5, -(-columns * bits // 8)) and codes.dtype == torch.uint8
    for n, k in itertools.product(range(5), range(columns)):
        byte, shift = divmod(k * bits, 8)
        assert int(codes[n, byte]) >> shift & (2**bits - 1) == int(indices[n, k])
    assert torch.equal(unpacked_rows(codes, bits, columns), indices)


def test_a_codebook_over_it_is_refused_with_what_there_is_instead() -> None:
    model, data = Classifier(), [(inputs(200),)]
    methods = [{"head": hc.Wide(0.9, classes=100)}, {"head": hc.Codebook(4)}]
    with pytest.raises(hc.ConfigError, match=r"read one by one.*hc.Wide\(code_bits=...\)"):
        hc.compile(model.eval(), (inputs(2),), methods, data)
    plan = hc.compile(model, (inputs(2),), [methods[0], hc.Codebook(4)], data).plan
    assert str(plan["head"].config).startswith("wide") and str(plan["hidden"].config).startswith("codebook")


@pytest.mark.parametrize("code_bits", [None, 4])
def test_scaled_rows_keep_their_index(code_bits: int | None) -> None:
    code = code_of(compiled_of(Classifier(), code_bits=code_bits))
    twice = code.scaled(torch.full((CLASSES,), 2.0))
    assert torch.equal(twice.rows(), 2 * code.rows()) and torch.equal(twice.limit, code.limit)
    if code_bits is None:
        assert torch.equal(code.in_bf16().rows(), code.rows().bfloat16().float())
    else:
        rounded = code.in_bf16().codes
        assert rounded is not None and torch.equal(rounded.codebook, rounded.codebook.bfloat16().float())
