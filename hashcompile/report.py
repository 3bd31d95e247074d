"""What became of every layer, as a table that a person reads and records that a program reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from rich.console import Console, ConsoleOptions, Group, RenderResult

from hashcompile.core.console import format_bytes, format_count, render, table
from hashcompile.core.kept import Refusal
from hashcompile.core.reshaping import Corrected, Factored, Finding, Size, Uncorrected


@dataclass(frozen=True)
class LayerReport:
    """One layer. Fields that do not apply are None."""

    name: str
    kind: str
    shape: tuple[int, ...]
    method: str | None
    bits_per_weight: float
    nbytes: int  # as stored: codes with their padding, tables, scales; or the dense weight
    dense_nbytes: int
    error: (
        float | None
    )  # of its outputs on calibration, against the original model's; of the weights without data
    kernel: str | None  # the operator that computes on the codes; None: dense when the model runs
    reason: str | None  # why the layer was left alone
    dense_shape: tuple[int, ...] | None = None  # that of the original model, where a structural stage cut it
    remark: str | None = None  # what the code itself says of its gains
    coded_nbytes: int | None = None  # in a .hc file with entropy coding, some bytes off


@dataclass(frozen=True)
class Quality:
    """Compressed model against the original, over the outputs on the example inputs (and the first of calibration)."""

    relative_error: float  # ||y' - y|| / ||y||
    cosine: float  # of all outputs as one vector


@dataclass(frozen=True)
class ReshapingReport:
    """What structural stages did to the whole model."""

    methods: tuple[str, ...]
    before: Size
    after: Size
    refused: tuple[Refusal, ...]  # channels that could not be removed, and why
    findings: tuple[Finding, ...] = ()  # of automatic rules, step by step
    corrected: tuple[Corrected, ...] = ()  # layers that make up for removed channels
    uncorrected: tuple[Uncorrected, ...] = ()  # layers that do not
    factored: tuple[Factored, ...] = ()  # layers of which one product became several

    def summary(self) -> Sequence[str]:
        """Lines of text: what was saved; then each reason, with the layers that it held back."""
        was, now = self.before, self.after
        lines = [
            f"{'; '.join(self.methods)}: {format_count(was.parameters)} -> {format_count(now.parameters)} "
            f"parameters, {format_count(was.macs)} -> {format_count(now.macs)} multiply-accumulates a sample"
        ]
        if self.corrected:
            before, after = (
                sum(errors) / len(errors)
                for errors in zip(*((each.before, each.after) for each in self.corrected), strict=True)
            )
            lines.append(
                f"corrected layers: {len(self.corrected)}, mean relative output error {before:.2%} -> {after:.2%}"
            )
        lines += grouped("not corrected", ((each.reason, each.layer) for each in self.uncorrected))
        lines += grouped(
            "corrected in part", ((each.limit, each.layer) for each in self.corrected if each.limit)
        )
        told = [
            f"{each.layer} {each.after:.2%} ({each.predicted:.2%})"
            for each in self.corrected
            if each.predicted is not None
        ]
        if told:
            lines.append(f"relative output errors, measured (and predicted): {', '.join(told)}")
        lines += [
            f"{each.layer}: {each.verdict}, {each.rule} {each.measure:.3f}, removed {each.removed} of {each.units}"
            for each in self.findings
        ]
        lines += map(factoring, self.factored)
        held = (
            (
                each.reason,
                each.layer + ("" if each.channels == each.of else f" ({each.channels} of {each.of})"),
            )
            for each in self.refused
        )
        return [*lines, *grouped("kept whole", held)]


def grouped(what: str, layers: Iterable[tuple[str, str]]) -> list[str]:
    """One line a reason, of (reason, layer)."""
    by_reason: dict[str, list[str]] = {}
    for reason, layer in layers:
        by_reason.setdefault(reason, []).append(layer)
    return [f"{what}, since {reason}: {', '.join(names)}" for reason, names in by_reason.items()]


def factoring(done: Factored) -> str:
    """Both sides: what the layer cost, and what stands there now."""
    was, now = done.before, done.after
    beside = "" if done.svd_error is None else f"; truncated SVD at equal cost {done.svd_error:.2%}"
    return (
        f"{done.layer}: {done.form}, "
        f"{format_count(was.parameters)} -> {format_count(now.parameters)} parameters, "
        f"{format_count(was.macs)} -> {format_count(now.macs)} multiply-accumulates, "
        f"error {done.error:.2%}{beside}"
    )


@dataclass(frozen=True)
class Report:
    """`print(compiled.report())` shows the table; `.layers` holds the records, `.as_dict()` is JSON."""

    layers: tuple[LayerReport, ...]
    other_nbytes: int  # biases, norms, and all that is no layer's weight
    quality: Quality | None
    compute: str = "float"  # the arithmetic of our kernels
    rounding_error: float | None = None  # of the outputs, by that arithmetic: ||y' - y|| / ||y||
    other_dense_nbytes: int | None = None  # of the original model, where a structural stage cut any
    reshaping: ReshapingReport | None = None

    def __iter__(self) -> Iterator[LayerReport]:
        return iter(self.layers)

    def __getitem__(self, name: str) -> LayerReport:
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(f"{name!r}; layers are {[layer.name for layer in self.layers]}")

    @property
    def nbytes(self) -> int:
        return sum(layer.nbytes for layer in self.layers) + self.other_nbytes

    @property
    def coded_nbytes(self) -> int:
        """`nbytes` in a .hc file whose codes are entropy-coded; some bytes off."""
        saved = (layer.nbytes - layer.coded_nbytes for layer in self.layers if layer.coded_nbytes is not None)
        return self.nbytes - sum(saved)

    @property
    def dense_nbytes(self) -> int:
        other = self.other_nbytes if self.other_dense_nbytes is None else self.other_dense_nbytes
        return sum(layer.dense_nbytes for layer in self.layers) + other

    def as_dict(self) -> Mapping[str, object]:
        sizes = {"nbytes": self.nbytes, "coded_nbytes": self.coded_nbytes, "dense_nbytes": self.dense_nbytes}
        return {**asdict(self), **sizes}

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Group(
            table(
                ("layer", "shape", "method", ">bits/weight", ">bytes", ">error", "runs as"),
                map(row, self.layers),
            ),
            *self.summary(),
        )

    def summary(self) -> Sequence[str]:
        ratio = self.dense_nbytes / self.nbytes if self.nbytes else 1.0
        lines = [
            f"\nall tensors: {format_bytes(self.dense_nbytes)} -> {format_bytes(self.nbytes)}, {ratio:.2f}x smaller; "
            f"{format_bytes(self.other_nbytes)} of it biases, norms and all else that no method encodes"
        ]
        if self.coded_nbytes < self.nbytes:
            lines.append(f"in a .hc file, codes entropy-coded: {format_bytes(self.coded_nbytes)}")
        if self.quality:
            lines.append(
                f"outputs against the original, when compiled: relative error {self.quality.relative_error:.2%}, "
                f"cosine {self.quality.cosine:.5f}"
            )
        lines += [f"{layer.name}: {layer.remark}" for layer in self.layers if layer.remark]
        if self.reshaping:
            lines += self.reshaping.summary()
        if self.rounding_error is not None:
            lines.append(f"{self.compute} activations: relative error {self.rounding_error:.2%}")
        return lines

    def __str__(self) -> str:
        return render(self)


def row(layer: LayerReport) -> tuple[str, ...]:
    shape = " x ".join(map(str, layer.shape))
    if layer.dense_shape not in (None, layer.shape):
        shape += f" of {' x '.join(map(str, layer.dense_shape or ()))}"
    bits, size = f"{layer.bits_per_weight:.2f}", format_bytes(layer.nbytes)
    if layer.method is None:
        return layer.name, shape, "-", bits, size, "-", f"dense: {layer.reason}"
    error = "-" if layer.error is None else f"{layer.error:.2%}"
    runs = layer.kernel or "dense at load: no fused kernel, small on disk only"
    return layer.name, shape, layer.method, bits, size, error, runs
