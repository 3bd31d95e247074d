"""A code that learns: it begins at the one that it was given, and every phase has the gradients that it says."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from hashcompile.core.assign import soft
from hashcompile.core.rows import RowView
from hashcompile.passes.codebook import CodebookWeight, LearningCodebook
from hashcompile.passes.codebook.fit import fit_codebook
from hashcompile.passes.codebook.learning import spread

VIEWS = {
    "one row": (RowView((1, 30)), 0),
    "linear": (RowView((40, 33)), 0),
    "groups": (RowView((40, 33)), 16),
    "conv": (RowView((18, 4, 3, 3)), 0),
    "transposed": (RowView((4, 9, 3, 3), 2), 0),
}


def learning(
    name: str = "linear", bits: int = 2, grid: bool = False
) -> tuple[LearningCodebook, CodebookWeight, Tensor]:
    """One that learns, the code it begins at, with indices that no nearest entry gives, and the weight."""
    view, group = VIEWS[name]
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(view.shape, generator=generator)
    fit = fit_codebook(view.rows(weight).contiguous(), bits, group_rows=group, int8_grid=grid)
    other = torch.rand(view.size, generator=generator) < 0.2
    drawn = torch.randint(2**bits, view.size, generator=generator).to(torch.uint8)
    peak = fit.codebook.abs().max()
    code = CodebookWeight(
        view, bits, group, torch.where(other, drawn, fit.indices), fit.codebook / peak, fit.scale * peak
    )
    return LearningCodebook(code, weight, grid), code, weight


@pytest.mark.parametrize("grid", [False, True])
@pytest.mark.parametrize("name", VIEWS)
def test_begins_at_its_code(name: str, grid: bool) -> None:
    code, start, weight = learning(name, grid=grid)
    with torch.no_grad():
        torch.testing.assert_close(code.eval()(), start(), rtol=1e-6, atol=1e-6)
        assert torch.equal(code.stored().indices, start.indices)
        assert torch.equal(code.stored()(), code())
        right = (code.latent - weight).abs() < 1e-6
        assert 0.5 < float(right.double().mean()) < 1, "weights that have their nearest entry already stay"
    assert code.nbytes == start.nbytes and code.describe() == start.describe()


@pytest.mark.parametrize("name", ["linear", "groups", "transposed"])
def test_soft_gradients(name: str) -> None:
    """Exact, through latent weights, tables and scales at once."""
    code, _, _ = learning(name)
    code = code.double().train()
    code.temperature = 0.7
    values = [code.latent[:3].detach().clone(), code.codebook.detach().clone(), code.scale.detach().clone()]

    def rows(latent: Tensor, codebook: Tensor, scale: Tensor) -> Tensor:
        whole = torch.cat([latent, code.latent.detach()[3:]])
        return torch.func.functional_call(code, {"latent": whole, "codebook": codebook, "scale": scale})

    assert torch.autograd.gradcheck(rows, [value.requires_grad_() for value in values])


@pytest.mark.parametrize("name", ["linear", "groups"])
def test_straight_through_and_held_gradients(name: str) -> None:
    code, start, _ = learning(name)
    above = torch.randn(start().shape, generator=torch.Generator().manual_seed(3))
    start().backward(above)
    for held in (False, True):
        code.zero_grad()
        if held:
            code.hold()
        code().backward(above)
        assert code.latent.grad is not None and start.codebook.grad is not None
        torch.testing.assert_close(code.latent.grad, torch.zeros_like(above) if held else above)
        torch.testing.assert_close(code.codebook.grad, start.codebook.grad, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(code.scale.grad, start.scale.grad, rtol=1e-5, atol=1e-5)


def test_held_assignments_stay() -> None:
    code, _, _ = learning()
    code.temperature = 0.3
    soft = code.train()()
    code.hold()
    before = code.stored()
    assert not torch.equal(soft, code())
    with torch.no_grad():
        code.latent.neg_()
        code.codebook.mul_(2)
    code.hold()
    assert torch.equal(code.stored().indices, before.indices)
    torch.testing.assert_close(code().detach(), 2 * before().detach())


def test_tables_stay_on_the_grid() -> None:
    code, _, _ = learning(bits=4, grid=True)
    with torch.no_grad():
        code.codebook.add_(torch.randn(code.codebook.shape, generator=torch.Generator().manual_seed(1)) / 10)
    table = code.stored().codebook.detach()
    steps = table / table.abs().max() * 127
    assert float((steps - steps.round()).abs().max()) < 1e-4
    assert float((table - code.codebook.detach()).abs().max()) <= float(table.abs().max()) / 127 * 0.5001
    code().sum().backward()
    assert code.codebook.grad is not None and bool((code.codebook.grad != 0).all())


@pytest.mark.parametrize(
    "weight",
    [
        torch.zeros(20, 12),
        torch.full((20, 12), 0.3),
        torch.eye(20)[:, :12],
        torch.randn(20, 12) * torch.eye(20)[:, :1],
    ],
    ids=["zero", "constant", "few values", "one row is not zero"],
)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_weights_with_little_in_them(weight: Tensor, temperature: float) -> None:
    fit = fit_codebook(weight, 3)
    start = CodebookWeight(RowView((20, 12)), 3, 0, fit.indices, fit.codebook, fit.scale)
    code = LearningCodebook(start, weight, grid=False).train()
    torch.testing.assert_close(code.eval()(), start())
    code.train().temperature = temperature
    code().square().sum().backward()
    for name, parameter in code.named_parameters():
        assert parameter.grad is not None and bool(torch.isfinite(parameter.grad).all()), name


def test_spread_is_where_a_mixture_follows() -> None:
    """Slope 1 between two entries; the identity, nearly, between many at equal distances."""
    for table in (torch.tensor([-0.7, 0.7]), torch.linspace(-1, 1, 16)):
        values = torch.linspace(
            -1 / 15, 1 / 15, 33, requires_grad=True
        )  # from one entry of the 16 to the next
        mixed = soft(values, table, spread(table))
        (slope,) = torch.autograd.grad(mixed.sum(), values)
        assert math.isclose(float(slope.mean()), 1, abs_tol=0.02)
    assert float(spread(torch.full((4,), 0.5))) == 1
