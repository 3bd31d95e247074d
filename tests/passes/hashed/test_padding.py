"""The row of padding of a hashed embedding: where it is zero it stays so, fitted, trained, stored and exported."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hashcompile as hc
import hashcompile_runtime as hcrt
from hashcompile.core import device_ops, on_codes
from hashcompile.core.encoded import encoded_weights
from tests.oracle import relative, run, stock

PAD = 3
CONFIGS = [
    hc.Hashed(1 / 4),
    hc.Hashed(1 / 4, tile=True),
    hc.Hashed(1 / 4, start="sample"),
    hc.Hashed(1 / 4, pool="all"),
    hc.Hashed(1 / 4, tile=True, start="sample", pool="all"),
]


class Bags(nn.Module):
    """Sums of rows, and the rows themselves; the table may be the output projection as well."""

    def __init__(self, tied: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(200, 40, padding_idx=PAD)
        self.head = nn.Linear(40, 200 if tied else 10, bias=False)
        if tied:
            self.head.weight = self.table.weight

    def forward(self, ids: Tensor) -> Tensor:
        rows = self.table(ids)
        return torch.cat([self.head(rows.sum(1, keepdim=True)).flatten(1), rows.flatten(1)], 1)


def some_ids(count: int = 16) -> Tensor:
    """Half of them padding; all of the first."""
    ids = torch.randint(0, 200, (count, 6), generator=torch.Generator().manual_seed(count))
    ids[:, 3:] = PAD
    ids[0] = PAD
    return ids


def table_of(graph: nn.Module) -> Any:
    """The code of the table, which is that of the head where they are tied."""
    return next(code for code in encoded_weights(graph).values() if code.view.shape == (200, 40))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("data", [False, True])
@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_the_row_of_padding_is_zero_in_every_file(
    config: hc.Hashed, data: bool, tied: bool, tmp_path: Path
) -> None:
    ids = some_ids()
    compiled = hc.compile(
        Bags(tied).eval(), (ids,), config, [(ids,)] if data else None, compute="float", progress=False
    )
    code = table_of(compiled.graph_module)
    assert code.padding == PAD and int((code().detach() == 0).all(1).sum()) == 1
    for check in compiled.export_onnx(tmp_path / "m.onnx"):
        assert check.error <= check.tolerance
    compiled.save(tmp_path / "m.hc")
    loaded = hc.load(tmp_path / "m.hc")
    assert loaded.plan == compiled.plan
    with torch.no_grad():
        wanted = compiled(ids)
        assert torch.equal(loaded(ids), wanted)
    for session in (stock(tmp_path / "m.onnx"), hcrt.session(tmp_path / "m.onnx")):
        got = torch.as_tensor(run(session, (ids,)))
        assert not got[0].any() and bool(got[1:].any())
        assert relative(got, wanted) < 1e-6


@pytest.mark.parametrize("tile", [False, True])
def test_it_is_zero_in_a_library(tile: bool, tmp_path: Path) -> None:
    pytest.importorskip("tvm", reason="TVM is not installed: pip install 'hashcompile[tvm]'")
    from hashcompile.lower.tvm_library import runner

    ids = some_ids()
    compiled = hc.compile(Bags(), (ids,), hc.Hashed(1 / 4, tile=tile), compute="float", progress=False)
    (check,) = compiled.export_tvm(tmp_path / "m.so")
    (got,) = runner(tmp_path / "m.so")((ids,))
    assert check.error <= check.tolerance and not got[0].any() and bool(got[1:].any())


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_it_is_zero_after_training(config: hc.Hashed) -> None:
    ids = some_ids()
    graph = hc.compile(Bags().eval(), (ids,), config, compute="float", progress=False).graph_module.train()
    before = table_of(graph)().detach().clone()
    optimizer = torch.optim.Adam(graph.parameters(), 0.05, weight_decay=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        (graph(ids) - 1).square().mean().backward()
        optimizer.step()
    after = table_of(graph)().detach()
    assert not after[PAD].any() and not torch.allclose(after, before)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_padding_has_no_say_in_the_values(config: hc.Hashed) -> None:
    """Not even where calibration reads it more often than all other rows together."""
    ids = some_ids()
    often = torch.cat([ids, torch.full((500, 6), PAD)])
    first, second = (
        table_of(hc.compile(Bags(), (ids,), config, data, compute="float", progress=False).graph_module)
        for data in ([(ids,)], [(often,)])
    )
    assert torch.equal(first.values, second.values)


@pytest.mark.parametrize("data", [False, True])
@pytest.mark.parametrize("second", [[], [hc.Hashed(1 / 2)], [hc.Hashed(1 / 4, tile=True)]], ids=str)
def test_a_table_of_low_rank_keeps_it(second: list[Any], data: bool) -> None:
    """Rounding would leave some 1e-16 of it, which is no zero for the next stage."""
    ids = some_ids()
    method = [{"table": hc.LowRank(rank=16)}, *second]
    compiled = hc.compile(Bags(), (ids,), method, [(ids,)] if data else None, compute="float", progress=False)
    with torch.no_grad():
        assert not compiled(ids)[0].any() and compiled.plan["table.down"].layer.padding == PAD


@pytest.mark.parametrize("pool", [None, "one"])
def test_values_are_the_means_of_the_other_rows(pool: str | None) -> None:
    model = Bags()
    method = {"table": hc.Hashed(1 / 4, pool=pool)}
    code = table_of(hc.compile(model, (some_ids(),), method, compute="float").graph_module)
    weight, count = model.table.weight.detach().double(), len(code.values)
    rows = [row for row in range(200) if row != PAD]
    index = code.index[rows].long()
    for bucket in range(0, count, 97):
        plus, minus = weight[rows][index == bucket], weight[rows][index == bucket + count]
        wanted = torch.cat([plus, -minus]).mean() if len(plus) + len(minus) else torch.zeros(())
        assert float(code.values[bucket].detach()) == pytest.approx(float(wanted), abs=1e-6)


@pytest.mark.parametrize("pool", [None, "one"])
def test_no_value_is_sampled_from_it(pool: str | None) -> None:
    method = {"table": hc.Hashed(1 / 4, start="sample", pool=pool)}
    code = table_of(hc.compile(Bags(), (some_ids(),), method, compute="float").graph_module)
    assert int((code() == 0).sum()) == 40


def test_a_row_of_padding_that_was_trained_is_as_any_other() -> None:
    model = Bags()
    model.table.weight.data[PAD] = 1.0
    compiled = hc.compile(model, (some_ids(),), hc.Hashed(1 / 4), compute="float")
    code = table_of(compiled.graph_module)
    assert compiled.plan["table"].layer.padding == PAD
    assert code.padding is None and bool((code()[PAD] != 0).all())


def test_a_linear_layer_with_padding_reads_no_pool(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its kernel knows no such row."""
    monkeypatch.setattr("hashcompile.passes.hashed.onnx.DENSE_BYTES", 0)
    ids = some_ids()
    compiled = hc.compile(Bags(tied=True), (ids,), hc.Hashed(1 / 4, tile=True), compute="float")
    checks = compiled.export_onnx(tmp_path / "m.onnx")
    assert all(check.error <= check.tolerance for check in checks)
    assert not any("HashedLinear" in str(line.kernel) for line in compiled.report())


@pytest.mark.parametrize("tile", [False, True])
def test_kernels_of_a_device_give_zero(tile: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels that tell all rows from the values alone; a tied projection computes with the dense weight."""
    ids = some_ids()
    graph = hc.compile(
        Bags(tied=True), (ids,), hc.Hashed(1 / 4, tile=tile), compute="float", progress=False
    ).graph_module
    code, calls = table_of(graph), []
    plain = copy.deepcopy(code)
    plain.index = plain.index.clone()
    plain.index[PAD] = 0

    def kernel(given: Tensor, *_: Any) -> Tensor:
        calls.append(given)
        return plain.rows()[given]

    with torch.no_grad():
        wanted = graph(ids)
        monkeypatch.setattr(on_codes, "kernels_for", lambda _device: object())
        monkeypatch.setattr(device_ops, "kernels_for", lambda _device: object())
        monkeypatch.setattr(torch.ops.hashcompile, "hashed_embedding", kernel)
        got = graph(ids)
    assert calls and not got[0].any() and torch.equal(got, wanted)
