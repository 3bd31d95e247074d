"""Fitting codebooks: no step raises the error, threads do not matter, odd matrices are survived."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import pytest
import torch
from torch import Tensor

from hashcompile.core.errors import CalibrationError, WeightError
from hashcompile.passes.codebook import chunk as chunk_module
from hashcompile.passes.codebook import fit as fit_module
from hashcompile.passes.codebook import grid as grid_module
from hashcompile.passes.codebook.alternate import Alternation
from hashcompile.passes.codebook.feedback import nearest, sweep
from hashcompile.passes.codebook.fit import CodebookFit, fit_codebook


def decode(fit: CodebookFit, group_rows: int = 0) -> Tensor:
    """The dense matrix a fit stands for: (N, K) float32."""
    n = len(fit.scale)
    group = torch.arange(n) // (group_rows or n)
    return fit.codebook[group].gather(1, fit.indices.long()) * fit.scale[:, None]


def layer(n: int, k: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Weights (n, k) and the gram (k, k) of correlated inputs."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(3 * k, k, generator=generator) @ torch.randn(k, k, generator=generator)
    inputs = inputs * torch.rand(k, generator=generator)
    weights = torch.randn(n, k, generator=generator) * torch.rand(n, 1, generator=generator)
    return weights, (inputs.T @ inputs).double()


def output_error(rows: Tensor, decoded: Tensor, gram: Tensor | None) -> float:
    """sqrt(tr((W-D) H (W-D)') / tr(W H W')), in float64."""
    gram = torch.eye(rows.shape[1]) if gram is None else gram
    lost, whole = (((m @ gram.double()) * m).sum() for m in ((rows - decoded).double(), rows.double()))
    return float((lost / whole).sqrt())


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("bits", [1, 4, 8])
@pytest.mark.parametrize("group_rows", [0, 16])
@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize("int8_grid", [False, True])
def test_shapes_and_reported_error(bits: int, group_rows: int, calibrated: bool, int8_grid: bool) -> None:
    rows, gram = layer(40, 30)
    gram = gram if calibrated else None
    fit = fit_codebook(rows, bits, group_rows=group_rows, gram=gram, int8_grid=int8_grid)
    assert fit.indices.shape == (40, 30) and fit.indices.dtype == torch.uint8
    assert fit.codebook.shape == (3 if group_rows else 1, 2**bits) and fit.codebook.dtype == torch.float32
    assert fit.scale.shape == (40,) and fit.scale.dtype == torch.float32
    assert int(fit.indices.max()) < 2**bits
    bytes_of_weights = int8_grid and bits == 8
    table = fit.codebook.roll(128, 1) if bytes_of_weights else fit.codebook
    assert torch.equal(table, table.sort(1).values)
    assert fit.error == pytest.approx(output_error(rows, decode(fit, group_rows), gram), rel=1e-5)
    if int8_grid:
        assert torch.equal(fit.codebook, fit.codebook.round())
        assert torch.equal(fit.codebook.abs().amax(1), torch.full((len(fit.codebook),), 127.0))


@pytest.mark.parametrize("bits", [2, 4])
def test_no_step_raises_the_error(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step of every turn, judged by the form it serves and summed afresh in float64."""
    rows, gram = layer(48, 90)
    seen: list[float] = []

    def afresh(fit: Alternation) -> float:
        total = 0.0
        for chunk in fit.chunks:
            form = chunk.form[0] if chunk.form.ndim == 3 else chunk.form[0].diag()
            gap = chunk.rows - chunk.decoded(chunk.levels(fit.tables))
            torch.testing.assert_close(chunk.residual, form @ gap, rtol=1e-9, atol=1e-12)
            total += float(((gap * (form @ gap)).sum(0) * chunk.importance).sum())
        return total

    def watch(fit: Alternation, turns: int, tables: bool = True, diagonal: bool = False) -> None:
        fit.each(lambda chunk: chunk.measure(diagonal, fit.tables))
        before = float("inf") if diagonal else afresh(fit)  # the very first indices are not chosen yet
        for _ in range(turns):
            for step in ("choose", "rescale", "refit"):
                if step == "refit":
                    if tables:
                        fit.refit_tables(3)
                else:
                    fit.each(lambda chunk, step=step: getattr(chunk, step)(fit.tables))
                now = afresh(fit)
                assert now <= before * (1 + 1e-12), step
                before = now
        seen.append(before)

    monkeypatch.setattr(Alternation, "run", watch)
    fit_codebook(rows, bits, gram=gram, row_weights=torch.rand(48), turns=6)
    assert len(seen) == 2  # on the diagonal, then on the gram


def test_coordinate_descent_ends_where_no_single_index_helps() -> None:
    rows, gram = layer(6, 12)
    form = gram / gram.diagonal().mean()
    levels = torch.linspace(-1, 1, 4).double().expand(6, 4) * rows.abs().amax(1, keepdim=True)
    base = rows.double().T.contiguous()
    indices = nearest(levels, base)
    for _ in range(50):
        decoded = levels.T.gather(0, indices.long())
        indices = sweep(decoded, form @ (base - decoded), form[None], levels)
    decoded = levels.T.gather(0, indices.long())

    def error(row: int, candidate: Tensor) -> float:
        gap = base[:, row] - candidate
        return float(gap @ form @ gap)

    for row in range(6):
        least = error(row, decoded[:, row])
        for column in range(12):
            for level in levels[row]:
                other = decoded[:, row].clone()
                other[column] = level
                assert error(row, other) >= least * (1 - 1e-12)


def test_feedback_is_gptq() -> None:
    """The sweep with L of H = L L' picks what GPTQ picks with the Cholesky factor of the inverse of H."""
    rows, gram = layer(5, 150)
    form = gram / gram.diagonal().mean() + 0.01 * torch.eye(150)
    levels = torch.linspace(-1, 1, 8).double().expand(5, 8) * rows.abs().amax(1, keepdim=True)
    upper = torch.linalg.cholesky(form.flip(0, 1).inverse(), upper=True)  # columns from the last to the first
    left = rows.double().flip(1).clone()
    expected = torch.empty(5, 150, dtype=torch.uint8)
    for j in range(150):
        expected[:, j] = (left[:, j, None] - levels).abs().argmin(1)
        gap = left[:, j] - levels.gather(1, expected[:, j, None].long())[:, 0]
        left[:, j:] -= gap[:, None] / upper[j, j] * upper[j, j:]
    base = rows.double().T.contiguous()
    found = sweep(base, torch.zeros_like(base), torch.linalg.cholesky(form)[None], levels)
    assert torch.equal(found.T.flip(1), expected)


def test_each_ingredient_pays() -> None:
    rows, gram = layer(64, 128)
    plain = output_error(rows, decode(fit_codebook(rows, 4)), gram)
    feedback = fit_codebook(rows, 4, gram=gram, turns=0).error
    refined = fit_codebook(rows, 4, gram=gram).error
    assert feedback < 0.8 * plain
    assert refined < 0.99 * feedback
    assert fit_codebook(rows, 4, gram=gram, int8_grid=True).error < 1.03 * refined
    assert fit_codebook(rows, 8, gram=gram).error < 0.2 * refined


def test_row_weights_shift_the_error() -> None:
    rows, _ = layer(64, 64)
    weights = torch.ones(64)
    weights[:8] = 1e4
    favoured, fair = (decode(fit_codebook(rows, 2, row_weights=w)) for w in (weights, None))
    assert (rows - favoured)[:8].norm() < (rows - fair)[:8].norm()


@pytest.mark.parametrize("group_rows", [0, 48])
@pytest.mark.parametrize("calibrated", [False, True])
def test_bit_identical_for_every_thread_count(
    group_rows: int, calibrated: bool, monkeypatch: pytest.MonkeyPatch, threads: None
) -> None:
    monkeypatch.setattr(fit_module, "CHUNK", 48)  # several chunks
    rows, gram = layer(120, 100)
    fits = []
    for count in (1, 2, 5):
        torch.set_num_threads(count)
        fits.append(fit_codebook(rows, 4, group_rows=group_rows, gram=gram if calibrated else None))
        assert torch.get_num_threads() == count
    for other in fits[1:]:
        assert torch.equal(fits[0].indices, other.indices)
        assert torch.equal(fits[0].codebook, other.codebook)
        assert torch.equal(fits[0].scale, other.scale)
        assert fits[0].error == other.error


def test_no_product_runs_on_several_threads(monkeypatch: pytest.MonkeyPatch, threads: None) -> None:
    """Small products agree by luck on any number of threads: what fixes large ones is that each has one thread."""
    torch.set_num_threads(4)
    seen = set()

    def spy(module: ModuleType, name: str) -> None:
        function = getattr(module, name)

        def counted(*args: object) -> object:
            seen.add((name, torch.get_num_threads()))
            return function(*args)

        monkeypatch.setattr(module, name, counted)

    spied = (
        (fit_module, "_quadratic_form"),
        (chunk_module, "sweep"),
        (chunk_module, "times"),
        (grid_module, "sweep"),
    )
    for module, name in spied:
        spy(module, name)
    monkeypatch.setattr(fit_module, "CHUNK", 8)
    rows, gram = layer(20, 16)
    fit_codebook(rows, 3, gram=gram, int8_grid=True)
    assert seen == {(name, 1) for _, name in spied}


@pytest.mark.parametrize("magnitude", [1e-30, 1e30])
@pytest.mark.parametrize("calibrated", [False, True])
def test_magnitudes_only_move_the_scales(magnitude: float, calibrated: bool) -> None:
    rows, gram = layer(32, 48)
    grams = (gram, gram * magnitude) if calibrated else (None, None)
    plain, moved = fit_codebook(rows, 3, gram=grams[0]), fit_codebook(rows * magnitude, 3, gram=grams[1])
    assert moved.error == pytest.approx(plain.error, rel=1e-2)
    torch.testing.assert_close(decode(moved) / magnitude, decode(plain), rtol=0.2, atol=0.05)


@pytest.mark.parametrize("int8_grid", [False, True])
@pytest.mark.parametrize("bits", [2, 8])
@pytest.mark.parametrize("calibrated", [False, True])
def test_few_values_are_kept_exactly(int8_grid: bool, bits: int, calibrated: bool) -> None:
    _, gram = layer(1, 30)
    for rows in (
        torch.full((20, 30), 0.3),
        torch.zeros(20, 30),
        torch.randint(-1, 2, (20, 30), generator=torch.Generator().manual_seed(0)) * 0.5,
        torch.tensor([[1.5]]),
    ):
        h = gram[: rows.shape[1], : rows.shape[1]] if calibrated else None
        fit = fit_codebook(rows, bits, gram=h, int8_grid=int8_grid)
        torch.testing.assert_close(decode(fit), rows, rtol=1e-5, atol=1e-6)  # turns converge linearly
        assert fit.error < 1e-5


@pytest.mark.parametrize("bits", [1, 4, 8])
@pytest.mark.parametrize("int8_grid", [False, True])
@pytest.mark.parametrize("group_rows", [0, 16])
@pytest.mark.parametrize("shape", [(1, 1), (1, 24), (24, 1), (17, 33)])
def test_odd_shapes_and_grams_are_survived(
    shape: tuple[int, int], group_rows: int, int8_grid: bool, bits: int
) -> None:
    rows, gram = layer(*shape)
    rows[-1] = 0
    one_sample = gram[0, :, None] * gram[0]
    dead = gram.clone()
    dead[::2] = dead[:, ::2] = 0
    indefinite = gram - 0.02 * gram.diagonal().mean() * torch.eye(shape[1])
    for h in (gram.float(), one_sample, dead, indefinite, torch.zeros_like(gram)):
        fit = fit_codebook(rows, bits, group_rows=group_rows, gram=h, int8_grid=int8_grid)
        decoded = decode(fit, group_rows)
        assert torch.isfinite(decoded).all() and torch.isfinite(fit.scale).all()
        assert not decoded[-1].any()
        assert fit.error < 1


def test_an_indefinite_gram_is_lifted_to_a_definite_form() -> None:
    _, gram = layer(1, 40)
    gram -= 0.05 * gram.diagonal().mean() * torch.eye(40)
    assert torch.linalg.eigvalsh(gram).min() < 0
    form, factor, order = fit_module._quadratic_form(gram, 40, 0.01)
    assert factor is not None
    assert torch.linalg.eigvalsh(form).min() > 0
    torch.testing.assert_close(factor @ factor.T, form)
    assert torch.equal(order, gram.diagonal().argsort())


def test_dead_inputs_get_the_nearest_entry() -> None:
    rows, gram = layer(16, 40)
    gram[3] = gram[:, 3] = 0
    fit = fit_codebook(rows, 4, gram=gram)
    levels = fit.codebook * fit.scale[:, None]
    nearest_gap = (levels - rows[:, 3:4]).abs().amin(1)
    torch.testing.assert_close((decode(fit) - rows)[:, 3].abs(), nearest_gap)


def test_broken_inputs_are_refused() -> None:
    rows, gram = layer(4, 8)
    with pytest.raises(CalibrationError, match="NaN or infinite"):
        fit_codebook(rows, 4, gram=gram * float("nan"))
    rows[1, 2] = float("inf")
    with pytest.raises(WeightError, match="NaN or infinite"):
        fit_codebook(rows, 4)


@pytest.mark.parametrize("sets", [2, 3, 60])
def test_every_set_of_rows_is_fitted_under_its_own_gram(sets: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when each set is fitted alone, apart from the table that they share: exactly, where it is given."""
    rows = layer(120, 24)[0]
    grams = torch.stack([layer(1, 24, seed)[1] * (1 + seed) for seed in range(sets)])
    grams[-1, 0] = grams[-1, :, 0] = 0

    def lost(decoded: Tensor) -> float:
        gap = (rows - decoded).double().reshape(sets, -1, 24)
        whole = rows.double().reshape(sets, -1, 24)
        energies = [float((each @ grams * each).sum()) for each in (gap, whole)]
        return (energies[0] / energies[1]) ** 0.5

    fit = fit_codebook(rows, 3, gram=grams)
    assert fit.error == pytest.approx(lost(decode(fit)), rel=1e-5)
    assert fit.error < 0.9 * lost(decode(fit_codebook(rows, 3, gram=grams.mean(0)))), (
        "one form for all is worse"
    )
    for chunk in (1, 7, 50):  # parts of a set, several sets, all of them
        monkeypatch.setattr(fit_module, "CHUNK", chunk)
        assert fit_codebook(rows, 3, gram=grams).error == pytest.approx(fit.error, rel=0.05)


def test_a_set_of_rows_without_inputs_is_survived() -> None:
    rows, gram = layer(40, 12)
    for grams in (torch.stack([gram, gram * 0]), torch.stack([gram * 0, gram * 0])):
        fit = fit_codebook(rows, 4, gram=grams)
        assert torch.isfinite(decode(fit)).all()
        assert (decode(fit) - rows).norm() < 0.3 * rows.norm()
