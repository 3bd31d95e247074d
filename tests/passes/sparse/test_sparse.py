"""Sparse in the pipeline: what stays, what is stored, what trains, and everything that comes after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

import hashcompile as hc
from hashcompile.core.encoded import encoded_weights
from hashcompile.core.errors import ArtifactError
from hashcompile.core.rows import RowView
from hashcompile.core.storage import Storage
from hashcompile.passes.sparse.weight import SparseCodes, SparseValues, SparseWeight
from tests import models


def codes(compiled: hc.CompiledModel) -> dict[str, SparseWeight]:
    found = encoded_weights(compiled.graph_module)
    assert all(isinstance(each, SparseWeight) for each in found.values())
    return found  # type: ignore[return-value]


def relative(got: Tensor, wanted: Tensor) -> float:
    got, wanted = got.detach().double(), wanted.detach().double()
    return float((got - wanted).norm() / wanted.norm())


def mlp() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(48, 40), nn.ReLU(), nn.Linear(40, 30)).eval()
    return model, torch.randn(600, 48) @ torch.randn(48, 48) / 7


@pytest.mark.parametrize(
    ("name", "bits"),
    [*((name, 4) for name in models.ZOO), ("cnn", None), ("transposed", None), ("tied", None)],
)
def test_every_layer_saved_and_exported(name: str, bits: int | None, tmp_path: Path) -> None:
    model, inputs = models.build(name)
    compiled = hc.compile(model, inputs(2), method=hc.Sparse(0.7, bits=bits), calibration=[inputs(9)])
    assert len(codes(compiled)) == len(compiled.plan)
    for code in codes(compiled).values():
        assert abs(code.density - 0.3) < 0.5 / code.mask.numel() + 1e-9
        assert not code.rows()[~code.mask].any()
        assert code.nbytes == sum(part.nbytes for part in code.storage().values())
    assert "dense at load" in str(compiled.report())
    compiled.export_onnx(tmp_path / "m.onnx")
    compiled.save(tmp_path / "m.hc")
    again = hc.load(tmp_path / "m.hc")
    assert torch.equal(again(*inputs(3)), compiled(*inputs(3)))
    assert str(again.report()) == str(compiled.report())


@pytest.mark.parametrize("share", [0.5, 0.98])
@pytest.mark.parametrize("bits", [None, 1, 3, 8])
def test_the_file_holds_the_very_weights(bits: int | None, share: float, tmp_path: Path) -> None:
    """Bitmap and gaps, values and codes: the stock runtime decodes them to the same numbers."""
    model = nn.Sequential(nn.Linear(50, 60, bias=False)).eval()
    compiled = hc.compile(model, (torch.randn(2, 50),), method=hc.Sparse(share, bits=bits), compute="float")
    (code,) = codes(compiled).values()
    assert ("gaps" in code.storage()) == (share > 0.9)
    compiled.export_onnx(tmp_path / "m.onnx")
    (got,) = ort.InferenceSession(tmp_path / "m.onnx").run(None, {"input": torch.eye(50).numpy()})
    torch.testing.assert_close(torch.from_numpy(got).T, code.rows().detach(), rtol=0, atol=0)


@pytest.mark.parametrize("bits", [None, 2])
def test_weights_of_zeros_and_of_one_value(bits: int | None, tmp_path: Path) -> None:
    for value in (0.0, 1.0):
        model = nn.Sequential(nn.Linear(30, 20), nn.Linear(20, 1)).eval()
        for layer in model:
            layer.weight.data.fill_(value)  # type: ignore[operator, union-attr]
        x = torch.randn(40, 30)
        for calibration in (None, [(x,)]):
            compiled = hc.compile(model, (x[:2],), method=hc.Sparse(0.9, bits=bits), calibration=calibration)
            assert torch.isfinite(compiled(x)).all()
            if not value:
                assert all(not code.mask.any() for code in codes(compiled).values())
                torch.testing.assert_close(compiled(x), model(x))
        compiled.export_onnx(tmp_path / "m.onnx")
        compiled.save(tmp_path / "m.hc")
        assert torch.equal(hc.load(tmp_path / "m.hc")(x), compiled(x))


def test_magnitude_of_a_layer_and_of_all() -> None:
    model, x = mlp()
    model[2].weight.data *= 10  # type: ignore[operator, union-attr]
    layer = codes(hc.compile(model, (x[:2],), method=hc.Sparse(0.5)))
    assert [round(code.density, 2) for code in layer.values()] == [0.5, 0.5]
    code = layer["0.weight"]
    assert code.rows()[code.mask].abs().min() >= model[0].weight[~code.mask].abs().max()  # type: ignore[index, operator, union-attr]
    joint = codes(hc.compile(model, (x[:2],), method=hc.Sparse(0.5, scope="global")))
    sizes = [(code.mask.sum(), code.mask.numel()) for code in joint.values()]
    assert sum(kept for kept, _ in sizes) == sum(of for _, of in sizes) // 2
    assert joint["0.weight"].density < 0.3 < 0.7 < joint["2.weight"].density


def test_data_makes_the_outputs_closer() -> None:
    """On other data than it was made from."""
    model, _ = mlp()
    mixing = torch.linalg.qr(torch.randn(48, 48))[0]
    x = torch.randn(600, 48) * torch.arange(1, 49) ** -1.0 @ mixing
    fresh = x[400:]
    lost = {}
    for name, method in {
        "magnitude": hc.Sparse(0.6),
        "wanda": hc.Sparse(0.6, importance="wanda"),
        "corrected": hc.Sparse(0.6, correction=True),
        "sparsegpt": hc.Sparse(0.6, importance="sparsegpt"),
    }.items():
        compiled = hc.compile(model, (x[:2],), method=method, calibration=[(x[:400],)])
        lost[name] = relative(compiled(fresh), model(fresh))
        if name == "wanda":
            assert all((code.mask.sum(1) == code.mask.sum(1)[0]).all() for code in codes(compiled).values())
    assert lost["corrected"] < 0.9 * lost["magnitude"] and lost["sparsegpt"] < 0.9 * lost["wanda"]


@pytest.mark.parametrize("importance", ["magnitude", "wanda", "sparsegpt"])
def test_two_of_four(importance: str) -> None:
    model, x = mlp()
    method = hc.Sparse(pattern="2:4", importance=importance, bits=4)
    for code in codes(hc.compile(model, (x[:2],), method=method, calibration=[(x,)])).values():
        assert (code.mask.reshape(len(code.mask), -1, 4).sum(2) == 2).all()


def test_auto_goes_by_the_pq_index() -> None:
    model, x = mlp()
    model[0].weight.data[:, 4:] *= 1e-4  # type: ignore[index, operator, union-attr]
    found = codes(hc.compile(model, (x[:2],), method=hc.Sparse("auto")))
    assert found["0.weight"].density < 0.15 < found["2.weight"].density


def test_what_is_sparse_already_is_stored_so() -> None:
    model, x = mlp()
    mask = torch.rand(40, 48) < 0.2
    model[0].weight.data *= mask  # type: ignore[operator, union-attr]
    for calibration in (None, [(x,)]):
        compiled = hc.compile(model, (x[:2],), method={"0": hc.Sparse(0)}, calibration=calibration)
        assert torch.equal(codes(compiled)["0.weight"].mask, mask)
        assert relative(compiled(x), model(x)) < 1e-6


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("importance", ["snip", "grasp", "synflow"])
def test_before_training_weights_stay_what_they_are_and_then_train(importance: str, scope: Any) -> None:
    model, x = mlp()
    labels = torch.randint(30, (600,))

    def loss(outputs: Tensor, batch: int) -> Tensor:
        return nn.functional.cross_entropy(outputs, labels[300 * batch : 300 * batch + 300])

    given = {} if importance == "synflow" else {"loss": loss}
    method = hc.Sparse(0.8, importance=importance, scope=scope, **given)  # type: ignore[arg-type]
    batches = None if importance == "synflow" else [(part,) for part in x.split(300)]
    compiled = hc.compile(model, (x[:2],), method=method, calibration=batches)
    found = codes(compiled)
    kept = sum(int(code.mask.sum()) for code in found.values())
    assert abs(kept / sum(code.mask.numel() for code in found.values()) - 0.2) < 1e-3
    for name, code in found.items():
        torch.testing.assert_close(code.rows(), model.get_parameter(name) * code.mask, rtol=0, atol=0)
    graph = compiled.graph_module.train()
    masks = {name: code.mask.clone() for name, code in found.items()}
    optimizer = torch.optim.Adam(graph.parameters(), 1e-2)
    first = float(nn.functional.cross_entropy(graph(x), labels).detach())
    for _ in range(20):
        optimizer.zero_grad()
        value = nn.functional.cross_entropy(graph(x), labels)
        value.backward()
        optimizer.step()
    assert float(value.detach()) < 0.99 * first
    for name, code in found.items():
        assert torch.equal(code.mask, masks[name]) and not code.rows()[~code.mask].any()


def test_scores_before_training_are_the_formulas() -> None:
    """Of a linear model, where gradient, Hessian and flow are known: y = W2 W1 x, loss = |y|^2 / 2 over a batch."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3, bias=False), nn.Linear(3, 2, bias=False)).eval()
    x = torch.randn(20, 4)
    w1, w2 = (layer.weight.detach() for layer in model)  # type: ignore[union-attr]

    def loss(y: Tensor, _: int) -> Tensor:
        return y.square().sum() / 2

    def mask(**given: Any) -> Tensor:
        method = {"0": hc.Sparse(0.5, **given)}
        compiled = hc.compile(model, (x[:2],), method=method, calibration=[(x,)])
        return codes(compiled)["0.weight"].mask

    form = w2.T @ w2
    gradient = form @ w1 @ x.T @ x
    snip = (w1 * gradient).abs()
    grasp = w1 * (form @ gradient @ x.T @ x)
    assert torch.equal(mask(importance="snip", loss=loss), snip > snip.flatten().sort().values[5])
    assert torch.equal(mask(importance="grasp", loss=loss), grasp > grasp.flatten().sort().values[5])
    flow = w1.abs() * w2.abs().sum(0)[:, None]
    assert torch.equal(mask(importance="synflow"), flow > flow.flatten().sort().values[5])


def test_a_codebook_among_kept_weights_has_error_feedback() -> None:
    model, x = mlp()
    lost = []
    for calibration in (None, [(x[:400],)]):
        compiled = hc.compile(model, (x[:2],), method=hc.Sparse(0.3, bits=2), calibration=calibration)
        lost.append(relative(compiled(x[400:]), model(x[400:])))
        for code in codes(compiled).values():
            assert isinstance(code, SparseCodes) and len(code.codebook) == 4
    assert lost[1] < 0.9 * lost[0]


def test_after_low_rank_and_after_channels() -> None:
    model, x = mlp()
    method = [hc.PruneChannels(0.2), hc.LowRank(rank=10), {"*up": hc.Sparse(0.5), "*down": hc.Codebook(4)}]
    compiled = hc.compile(model, (x[:2],), method=method, calibration=[(x,)])
    kinds = {name: type(code).__name__ for name, code in encoded_weights(compiled.graph_module).items()}
    assert kinds["0.up.weight"] == "SparseValues" and kinds["0.down.weight"] == "CodebookWeight"


@pytest.mark.parametrize("bits", [0, 3])
def test_copies(bits: int) -> None:
    """Rows times a factor, and bf16, of one code: what lowering makes of it."""
    mask = torch.rand(6, 9, generator=torch.Generator().manual_seed(0)) < 0.4
    count, factor = int(mask.sum()), torch.arange(1.0, 7.0)
    code: SparseWeight = SparseValues(RowView((6, 9)), mask, torch.randn(count))
    if bits:
        indices = torch.randint(2**bits, (count,)).to(torch.uint8)
        code = SparseCodes(RowView((6, 9)), mask, indices, torch.randn(2**bits), torch.rand(6))
    torch.testing.assert_close(code.scaled(factor).rows(), code.rows() * factor[:, None])
    torch.testing.assert_close(code.in_bf16().rows(), code.rows(), rtol=2**-8, atol=0)
    again = SparseWeight.restore(code.view, code.describe(), Storage(code.storage()))
    assert torch.equal(again.rows(), code.rows())
    for name in code.storage():
        broken = {key: value for key, value in code.storage().items() if key != name}
        with pytest.raises(ArtifactError):
            SparseWeight.restore(code.view, code.describe(), Storage(broken))
        if name != "entries":
            with pytest.raises(ArtifactError):
                SparseWeight.restore(
                    code.view, code.describe(), Storage({**code.storage(), name: torch.zeros(3, 3, 3)})
                )
    for wrong in (-1, 9, "4", None):
        with pytest.raises(ArtifactError):
            SparseWeight.restore(code.view, {"bits": wrong}, Storage(code.storage()))


def test_what_stays_has_its_reason() -> None:
    model, inputs = models.build("mixed")
    plan = hc.compile(
        model, inputs(2), method=hc.Sparse(0.5, importance="wanda"), calibration=[inputs(4)]
    ).plan
    assert "embedding" in str(plan["embed"].reason) and plan["fc"].config is not None
    model, x = mlp()
    plan = hc.compile(model, (x[:2],), method=hc.Sparse(0.01)).plan
    assert "too dense to gain" in str(plan["0"].reason)
    narrow = nn.Sequential(nn.Linear(3, 30)).eval()
    plan = hc.compile(narrow, (torch.randn(2, 3),), method=hc.Sparse(pattern="2:4")).plan
    assert "hold no run of 4" in str(plan["0"].reason)


def test_nan_is_refused_by_name() -> None:
    model, x = mlp()
    model[2].weight.data[0, 0] = float("nan")  # type: ignore[index, operator, union-attr]
    with pytest.raises(hc.WeightError, match=r"2\.weight"):
        hc.compile(model, (x[:2],), method=hc.Sparse(0.5))


@pytest.mark.parametrize("importance", ["wanda", "sparsegpt", "snip", "grasp"])
def test_needs_data(importance: str) -> None:
    model, x = mlp()
    with pytest.raises(hc.ConfigError, match="calibration"):
        hc.compile(model, (x[:2],), method=hc.Sparse(0.5, importance=importance))


def test_a_model_through_which_nothing_flows() -> None:
    model, x = mlp()
    model[2].weight.data.zero_()  # type: ignore[operator, union-attr]
    with pytest.raises(hc.ConfigError, match="nothing flows"):
        hc.compile(model, (x[:2],), method=hc.Sparse(0.5, importance="synflow"))


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"amount": 0.5, "pattern": "2:4"},
        {"amount": 1.0},
        {"amount": True},
        {"amount": "all"},
        {"amount": 0.5, "importance": "l7"},
        {"amount": 0.5, "importance": "movement"},
        {"amount": 0.5, "scope": "model"},
        {"amount": "auto", "scope": "global"},
        {"amount": 0.5, "importance": "wanda", "scope": "global"},
        {"pattern": "4:2"},
        {"pattern": "2 of 4"},
        {"pattern": "0:4"},
        {"pattern": "2:4", "scope": "global"},
        {"amount": 0.5, "bits": 9},
        {"amount": 0.5, "bits": True},
        {"amount": 0.5, "importance": "snip", "bits": 4},
        {"amount": "auto", "importance": "snip"},
        {"amount": 0.5, "loss": lambda y, _: y.sum()},
        {"amount": 0.5, "importance": "snip", "loss": 3},
    ],
)
def test_what_cannot_mean_anything(arguments: dict[str, Any]) -> None:
    with pytest.raises(hc.ConfigError, match="Sparse"):
        hc.Sparse(**arguments)


@pytest.mark.parametrize("importance", ["magnitude", "wanda", "sparsegpt"])
def test_a_share_below_one_empties_no_layer(importance: Any) -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(24, 32), nn.Linear(32, 1)), torch.randn(64, 24)
    compiled = hc.compile(model, (x[:2],), hc.Sparse(0.99, importance=importance), [(x,)])
    for code in codes(compiled).values():
        kept = (code.rows() != 0).sum(1)
        assert int(kept.sum()) >= 1
        assert importance != "wanda" or int(kept.min()) == 1, "of every row"
