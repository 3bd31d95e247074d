"""LowRank in the pipeline: the factors, both costs, what stays, and everything that comes after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hashcompile as hc
from hashcompile.core.layers import attribute
from tests import models


def factored(compiled: hc.CompiledModel) -> dict[str, hc.Factored]:
    assert compiled.plan.reshaping is not None
    return {each.layer: each for each in compiled.plan.reshaping.factored}


def reasons(compiled: hc.CompiledModel) -> dict[str, str]:
    assert compiled.plan.reshaping is not None
    return {each.layer: each.reason for each in compiled.plan.reshaping.refused}


def relative(got: Tensor, wanted: Tensor) -> float:
    got, wanted = got.detach().double(), wanted.detach().double()
    return float((got - wanted).norm() / wanted.norm())


class Shared(nn.Module):
    """One matrix, used twice, under a name of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.randn(40, 40) / 6)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(nn.functional.linear(x, self.mix).tanh(), self.mix)


def of_low_rank(conv: bool) -> tuple[nn.Module, Tensor]:
    """A layer whose weight has rank 3, and inputs."""
    torch.manual_seed(0)
    layer: nn.Module = nn.Conv2d(24, 20, 1) if conv else nn.Linear(24, 20)
    with torch.no_grad():
        layer.weight.copy_((torch.randn(20, 3) @ torch.randn(3, 24) / 8).reshape(layer.weight.shape))  # type: ignore[operator, union-attr]
    return nn.Sequential(layer).eval(), torch.randn(64, 24, 3, 3) if conv else torch.randn(64, 24)


@pytest.mark.parametrize("data", [False, True])
@pytest.mark.parametrize("conv", [False, True])
def test_a_weight_of_low_rank_is_found_out(conv: bool, data: bool) -> None:
    model, x = of_low_rank(conv)
    calibration = [(x[:32],), (x[32:],)] if data else None
    compiled = hc.compile(model, (x[:2],), method=hc.LowRank(error=1e-3), calibration=calibration)
    (done,) = factored(compiled).values()
    assert done.ranks == (3,) and done.factors == ("0.down.weight", "0.up.weight")
    assert relative(compiled(x), model(x)) < 1e-5 and done.error < 1e-5
    names = {name for name, _ in compiled.graph_module.named_parameters()}
    assert names == {"0.down.weight", "0.up.weight", "0.bias"}  # the bias stays with the last factor
    kinds = [node.target for node in compiled.graph_module.graph.nodes if node.op == "call_function"]
    assert len(kinds) == 2 and kinds[0] == kinds[1]
    assert done.before.parameters == 480 and done.after.parameters == 3 * 44
    pixels = 9 if conv else 1
    assert (done.before.macs, done.after.macs) == (480 * pixels, 3 * 44 * pixels)
    report = str(compiled.report())
    assert "480 -> 132 parameters" in report and "multiply-accumulates" in report
    assert compiled.report().dense_nbytes == 4 * 500 and compiled.report().nbytes == 4 * (132 + 20)


@pytest.mark.parametrize(
    ("conv", "by"),
    [
        ("tucker", "whitened"),
        ("tucker", "pca"),
        ("spatial", "whitened"),
        ("spatial", "svd"),
        ("channel", "pca"),
    ],
)
@pytest.mark.parametrize(
    ("name", "layer"),
    [("cnn", "conv"), ("strided", "0"), ("same", "0"), ("conv1d", "0"), ("conv3d", "0"), ("mlp", "0")],
)
def test_the_graph_computes_with_the_product_that_was_fitted(
    name: str, layer: str, conv: Any, by: Any
) -> None:
    """The reported error is that of the rewired graph: strides, padding and dilation went to the right factor."""
    model, inputs = models.build(name)
    method = {layer: hc.LowRank(rank=4, conv=conv, by=by)}
    compiled = hc.compile(model, inputs(2), method=method, calibration=[inputs(40)])
    if conv == "spatial" and name in ("conv1d", "conv3d"):
        assert "column and row" in reasons(compiled)[layer]
        return
    done = factored(compiled)[layer]
    module = model.get_submodule(layer)
    assert isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d))
    kept = {}
    module.register_forward_hook(lambda _, args, out: kept.update(x=args[0], y=out))
    model(*inputs(40))
    wanted, bias = kept["y"], module.bias
    node = next(n for n in compiled.graph_module.graph.nodes if done.factors[-1] in map(target, n.args))
    got = torch.fx.Interpreter(up_to(compiled, node)).run(*inputs(40))
    got, wanted = got.detach().double(), wanted.detach().double()
    shape = [1, -1, *[1] * (wanted.ndim - 2)]
    if bias is not None:
        whole = wanted - bias.detach().double().reshape(shape)
        error = (got - wanted).norm() / whole.norm()
    else:
        norm = getattr(model, {"stem": "norm1", "conv": "norm2"}.get(layer, ""), None)
        assert norm is None
        error = (got - wanted).norm() / wanted.norm()
    assert abs(float(error) - done.error) < 1e-4
    # what it costs is what the parameters say
    parameters = sum(attribute(compiled.graph_module, factor).numel() for factor in done.factors)
    assert parameters == done.after.parameters < done.before.parameters
    assert compiled.plan.reshaping is not None
    before, after = compiled.plan.reshaping.before, compiled.plan.reshaping.after
    assert before.macs - after.macs == done.before.macs - done.after.macs


def target(argument: Any) -> str:
    return str(argument.target) if isinstance(argument, torch.fx.Node) else ""


def up_to(compiled: hc.CompiledModel, node: torch.fx.Node) -> torch.fx.GraphModule:
    """The graph, ending with the value of `node`."""
    nodes = torch.fx.Graph()
    copied: dict[torch.fx.Node, torch.fx.Node] = {}
    for each in compiled.graph_module.graph.nodes:
        if each.op == "output":
            break
        copied[each] = nodes.node_copy(each, copied.__getitem__)
    nodes.output(copied[node])
    nodes.eliminate_dead_code()
    return torch.fx.GraphModule(compiled.graph_module, nodes)


@pytest.mark.parametrize("name", models.ZOO)
def test_factored_encoded_saved_and_exported(name: str, tmp_path: Path) -> None:
    model, inputs = models.build(name)
    method = [hc.LowRank(error=0.6), hc.Codebook(bits=4)]
    compiled = hc.compile(model, inputs(2), method=method, calibration=[inputs(16)])
    for done in factored(compiled).values():
        assert done.after.parameters < done.before.parameters
        assert "embed" in done.layer or name == "embedding" or done.after.macs < done.before.macs
    if name not in ("grouped", "depthwise", "transposed"):
        assert factored(compiled)
    compiled.export_onnx(tmp_path / "m.onnx")
    compiled.save(tmp_path / "m.hc")
    again = hc.load(tmp_path / "m.hc")
    assert torch.equal(again(*inputs(3)), compiled(*inputs(3)))
    assert again.plan.reshaping is not None and factored(again) == factored(compiled)
    assert str(again.report()) == str(compiled.report())


def test_a_tied_table_is_factored_once_for_both_uses() -> None:
    model, inputs = models.build("tied")
    compiled = hc.compile(model, inputs(2), method={"head": hc.LowRank(rank=31)})
    assert "cost more" in reasons(compiled)["head"]
    table = model.embed.weight.data  # type: ignore[union-attr]
    table[:, 12:] = table[:, :12].repeat(1, 2)[:, :20]  # type: ignore[index, operator]
    compiled = hc.compile(model, inputs(2), method={"head": hc.LowRank(error=1e-3)}, calibration=[inputs(64)])
    done = factored(compiled)["head"]
    assert done.ranks == (12,) and relative(compiled(*inputs(5)), model(*inputs(5))) < 1e-5
    readers = [
        node for node in compiled.graph_module.graph.nodes if done.factors[0] in map(target, node.args)
    ]
    assert len(readers) == 2


def test_a_matrix_used_twice_under_a_name_of_its_own() -> None:
    torch.manual_seed(0)
    model = Shared().eval()
    x = torch.randn(60, 40)
    compiled = hc.compile(model, (x[:2],), method=hc.LowRank(rank=12), calibration=[(x,)])
    done = factored(compiled)["mix"]
    assert done.factors == ("mix.down.weight", "mix.up.weight")
    product = attribute(compiled.graph_module, done.factors[1]) @ attribute(
        compiled.graph_module, done.factors[0]
    )
    torch.testing.assert_close(
        compiled(x), nn.functional.linear(nn.functional.linear(x, product).tanh(), product)
    )


def test_data_makes_the_outputs_closer() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 30), nn.ReLU(), nn.Linear(30, 30)).eval()
    x = torch.randn(2000, 40) * torch.arange(1, 41) ** -1.0
    fresh = torch.randn(500, 40) * torch.arange(1, 41) ** -1.0
    lost = {}
    for by in ("svd", "pca", "whitened"):
        compiled = hc.compile(
            model,
            (x[:2],),
            method={"0": hc.LowRank(rank=6, by=by)},
            calibration=[(x,)],  # type: ignore[arg-type]
        )
        lost[by] = relative(compiled(fresh), model(fresh))
    assert lost["whitened"] < 0.9 * lost["svd"] and lost["whitened"] <= 1.02 * lost["pca"]


def test_the_bias_takes_the_mean() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 30)).eval()
    x = torch.randn(500, 40) + 3
    compiled = hc.compile(model, (x[:2],), method=hc.LowRank(rank=5), calibration=[(x,)])
    off = (compiled(x) - model(x)).mean(0)
    assert float(off.abs().max()) < 0.01 * float(model(x).abs().max())
    assert factored(compiled)["0"].error < 0.5
    bare = nn.Sequential(nn.Linear(40, 30, bias=False)).eval()
    compiled = hc.compile(bare, (x[:2],), method=hc.LowRank(rank=5), calibration=[(x,)])
    assert list(dict(compiled.graph_module.named_parameters())) == ["0.down.weight", "0.up.weight"]


def test_auto_takes_the_cheapest_form_within_the_tolerance() -> None:
    model, inputs = models.build("cnn")
    costs = {}
    for conv in ("tucker", "spatial", "channel", "auto"):
        method = {"conv": hc.LowRank(error=0.5, conv=conv)}  # type: ignore[arg-type]
        compiled = hc.compile(model, inputs(2), method=method, calibration=[inputs(16)])
        done = factored(compiled)["conv"]
        assert done.error <= 0.5 + 1e-3
        costs[conv] = done.after.macs
    assert costs["auto"] == min(costs.values())


def test_a_smaller_tolerance_takes_higher_ranks() -> None:
    model, inputs = models.build("mlp")
    ranks = []
    for energy in (0.3, 0.6, 0.8):
        done = factored(hc.compile(model, inputs(2), method=hc.LowRank(energy=energy)))["0"]
        assert done.error**2 <= 1 - energy
        ranks.append(done.ranks[0])
    assert ranks == sorted(set(ranks))
    done = factored(hc.compile(model, inputs(2), method=hc.LowRank(energy=0.6, round_to=8)))["0"]
    assert done.ranks[0] % 8 == 0 and 0 <= done.ranks[0] - ranks[1] < 8


def test_what_stays_has_its_reason() -> None:
    for name, layer, reason in (
        ("grouped", "0", "2 groups"),
        ("depthwise", "0", "32 groups"),
        ("transposed", "0", "transposed"),
        ("mlp", "0", "factors of rank 50 would cost more than they save: 3500 -> 6000 parameters"),
    ):
        model, inputs = models.build(name)
        compiled = hc.compile(model, inputs(2), method=hc.LowRank(error=0.0))
        assert reason in reasons(compiled)[layer]
        assert reason in compiled.report()[layer].reason  # type: ignore[operator]
        torch.testing.assert_close(compiled(*inputs(3)), model(*inputs(3)), rtol=0, atol=0)


def test_a_factor_is_not_factored_again() -> None:
    model, inputs = models.build("mlp")
    compiled = hc.compile(model, inputs(2), method=[hc.LowRank(rank=8), hc.LowRank(rank=2)])
    assert set(reasons(compiled).values()) == {"it is a factor already"}
    assert len(factored(compiled)) == 2


def test_pruned_then_factored_then_trained() -> None:
    model, inputs = models.build("cnn")
    method = [hc.PruneChannels(amount=0.25), hc.LowRank(rank=6), hc.Codebook(4)]
    compiled = hc.compile(model, inputs(2), method=method, calibration=[inputs(16)])
    assert len(compiled.plan.kept["conv.weight"][0]) == 24 and "conv" in factored(compiled)
    graph = compiled.graph_module.train()
    before = {name: value.detach().clone() for name, value in graph.named_parameters()}
    graph(*inputs(4)).square().mean().backward()
    torch.optim.SGD(graph.parameters(), 0.1).step()
    moved = {name for name, value in graph.named_parameters() if not torch.equal(value, before[name])}
    assert any(name.startswith("conv.down") for name in moved)


def test_a_name_that_is_taken() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 20)).eval()
    model[0].down = nn.Linear(3, 3)
    model[0].register_forward_hook(lambda module, _, y: y + module.down.weight.sum())
    compiled = hc.compile(model, (torch.randn(2, 20),), method={"0": hc.LowRank(rank=3)})
    assert factored(compiled)["0"].factors == ("0.down_.weight", "0.up.weight")


@pytest.mark.parametrize("weight", [torch.zeros(20, 30), torch.ones(20, 30)])
def test_zero_and_constant_weights(weight: Tensor) -> None:
    model = nn.Sequential(nn.Linear(30, 20)).eval()
    model[0].weight.data.copy_(weight)
    x = torch.randn(50, 30)
    for calibration in (None, [(x,)]):
        compiled = hc.compile(model, (x[:2],), method=hc.LowRank(error=0.1), calibration=calibration)
        assert factored(compiled)["0"].ranks == (1,)
        torch.testing.assert_close(compiled(x), model(x), rtol=0, atol=1e-4)


def test_one_row_is_left_alone() -> None:
    model = nn.Sequential(nn.Linear(30, 1)).eval()
    compiled = hc.compile(model, (torch.randn(2, 30),), method=hc.LowRank(rank=1))
    assert "30 -> 31 parameters" in reasons(compiled)["0"]


def test_inputs_that_are_always_zero() -> None:
    model, inputs = models.build("mlp")
    compiled = hc.compile(model, inputs(2), method=hc.LowRank(rank=5), calibration=[(torch.zeros(8, 50),)])
    assert torch.isfinite(compiled(*inputs(4))).all()


def test_needs_data() -> None:
    model, inputs = models.build("mlp")
    for by in ("whitened", "pca"):
        with pytest.raises(hc.ConfigError, match="calibration"):
            hc.compile(model, inputs(2), method=hc.LowRank(rank=5, by=by))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"rank": 3, "energy": 0.9},
        {"rank": 0},
        {"rank": True},
        {"rank": 1.5},
        {"energy": 0},
        {"energy": 1.1},
        {"energy": "0.9"},
        {"error": 1.0},
        {"error": -0.1},
        {"rank": 3, "by": "qr"},
        {"rank": 3, "conv": "cp"},
        {"rank": 3, "conv": "auto"},
        {"rank": 3, "round_to": 0},
    ],
)
def test_what_cannot_mean_anything(arguments: dict[str, Any]) -> None:
    with pytest.raises(hc.ConfigError, match="LowRank"):
        hc.LowRank(**arguments)
