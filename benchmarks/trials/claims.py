"""A claim is one measured line: what it was in fp32, what it is now, and whether that keeps the promise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from rich.table import Table

from hashcompile.core.console import format_bytes, table
from hashcompile.verify import Check

FORMATS: dict[str, Callable[[float], str]] = {
    "%": "{:.2f} %".format,
    "ms": "{:.3f} ms".format,
    "bytes": lambda count: format_bytes(round(count)),
    "": "{:.4g}".format,
}
VERDICTS = {True: "pass", False: "MISS", None: ""}


@dataclass(frozen=True)
class Claim:
    """`figure` is what the target bounds; it is written as `form` says."""

    model: str
    what: str
    unit: str  # of fp32 and ours: a key of FORMATS
    fp32: float | None
    ours: float
    figure: float
    form: str
    at_least: float | None = None
    at_most: float | None = None

    @property
    def kept(self) -> bool | None:
        """None where nothing was promised."""
        if self.at_least is not None:
            return self.figure >= self.at_least
        return self.figure <= self.at_most if self.at_most is not None else None

    @property
    def target(self) -> str:
        if self.at_least is not None:
            return ">= " + self.form.format(self.at_least)
        return "<= " + self.form.format(self.at_most) if self.at_most is not None else ""


def accuracy(model: str, what: str, fp32: float, ours: float, may_lose: float) -> Claim:
    """Percent right; `may_lose` in points."""
    return Claim(model, what, "%", fp32, ours, ours - fp32, "{:+.2f} points", at_least=-may_lose)


def size(model: str, what: str, fp32: int, ours: int, at_most: float | None = None) -> Claim:
    """Bytes."""
    if at_most is not None:
        return Claim(model, what, "bytes", fp32, ours, ours / 1e6, "{:.2f} MB", at_most=at_most / 1e6)
    return Claim(model, what, "bytes", fp32, ours, fp32 / max(ours, 1), "{:.1f} x smaller")


def agreement(model: str, check: Check) -> Claim:
    """An export against the compressed graph, in ONNX Runtime as it comes or with our library."""
    what = f"relative error of the file, {check.runtime} runtime"
    return Claim(model, what, "", None, check.error, check.error, "{:.1e}", at_most=check.tolerance)


def as_table(claims: Sequence[Claim]) -> Table:
    """One line a claim, models one below the other."""
    rows = []
    for before, claim in zip([None, *claims], claims, strict=False):
        write = FORMATS[claim.unit]
        rows.append(
            (
                "" if before and before.model == claim.model else claim.model,
                claim.what,
                "" if claim.fp32 is None else write(claim.fp32),
                write(claim.ours),
                claim.form.format(claim.figure),
                claim.target,
                VERDICTS[claim.kept],
            )
        )
    return table(("model", "what", ">fp32", ">ours", ">figure", ">target", ""), rows)


def as_json(claims: Sequence[Claim]) -> list[dict[str, object]]:
    return [asdict(claim) | {"kept": claim.kept} for claim in claims]
