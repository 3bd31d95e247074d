"""CompiledModel: what `compile` returns. Run it, train it, look at it, save it, export it."""

from __future__ import annotations

import dataclasses
import math
import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from platform import machine
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from hashcompile import container
from hashcompile.bench import Settings
from hashcompile.calibrate import read_batches
from hashcompile.core.console import format_bytes, progress
from hashcompile.core.encoded import encoded_weights
from hashcompile.core.errors import ArtifactError, ConfigError, HashcompileError, WeightError
from hashcompile.core.files import check_library_name, staged
from hashcompile.core.graph import CompressedGraph, flat_copy
from hashcompile.core.method import COMPUTES, Compute
from hashcompile.core.reshaping import PARTS, RESHAPING
from hashcompile.core.rounding import Range
from hashcompile.core.signature import Batch, Inputs, Signature
from hashcompile.core.sweep import sweep
from hashcompile.lower import onnx as lower_onnx
from hashcompile.lower.destination import wants_cuda
from hashcompile.lower.select import select
from hashcompile.lower.tuning import Tuning
from hashcompile.lower.with_tvm import ADVICE, finds_gpu, installed, needed_by
from hashcompile.partial import partial_layers
from hashcompile.plan import Plan
from hashcompile.ranges import Ranges, measure
from hashcompile.recommend import Criterion, Format, Recommendation, Ways, recommend
from hashcompile.report import LayerReport, Quality, Report, ReshapingReport
from hashcompile.rounded import rounded
from hashcompile.ssh import Host
from hashcompile.verify import TVM_HERE, Check, Subject, Values, verify, verify_library

STORED = 2  # samples of the example inputs that a .hc file keeps: enough to export and verify again


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class CompiledModel:
    """A compressed model: the graph in PyTorch, which is the reference, and the way to its artifacts."""

    graph_module: CompressedGraph
    plan: Plan
    compute: Compute
    signature: Signature
    samples: Sequence[Batch]  # inputs that exports are verified on; the first is what was captured
    errors: dict[str, float]  # relative output error a layer, by parameter
    quality: Quality | None
    verify: bool
    ranges: Ranges = dataclasses.field(
        default_factory=Ranges
    )  # of the activations that int8 chains keep in 8 bits
    rounding_error: float | None = (
        None  # of the outputs, by rounding activations; None where nothing is rounded
    )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the compressed graph in PyTorch. Raises InputError for inputs that do not fit."""
        bound = self.signature.bind(args, kwargs)
        self.signature.flatten(bound)
        return self.graph_module(**bound) if self.signature.keywords else self.graph_module(*bound.values())

    def report(self) -> Report:
        """Per layer: method, bits per weight, bytes, relative output error, kernel, or the reason of a refusal."""
        codes = encoded_weights(self.graph_module)
        selection = select(self.graph_module, self.compute)
        reshaping = self.plan.reshaping
        shapes = reshaping.shapes if reshaping else {}
        lines = []
        for decision in self.plan:
            layer, code = decision.layer, codes.get(decision.layer.parameter)
            shape = shapes.get(layer.parameter, layer.view.shape)
            dense = reshaping.numel_before(layer.parameter) if reshaping else None
            lines.append(
                LayerReport(
                    name=layer.name,
                    kind=str(layer.kind or "other"),
                    shape=layer.view.shape,
                    method=str(decision.config) if code else None,
                    bits_per_weight=code.bits_per_weight if code else 32.0,
                    nbytes=code.nbytes if code else 4 * layer.view.numel,
                    dense_nbytes=4 * (math.prod(shape) if dense is None else dense),
                    error=self.errors.get(layer.parameter),
                    kernel=selection.kernel(layer.parameter) if code else None,
                    reason=decision.reason,
                    dense_shape=shape if reshaping else None,
                    remark=code.remark() if code else None,
                    coded_nbytes=code.coded_nbytes if code else None,
                )
            )
        weights = {decision.layer.parameter for decision in self.plan}
        tensors = [*self.graph_module.named_parameters(), *self.graph_module.named_buffers()]
        other = sum(
            tensor.nbytes
            for name, tensor in tensors
            if name not in weights and not any(name.startswith(code + ".") for code in codes)
        )
        if reshaping is None:
            return Report(tuple(lines), other, self.quality, self.compute, self.rounding_error)
        cut = sum(
            (math.prod(shapes[name]) - tensor.numel()) * tensor.element_size()
            for name, tensor in tensors
            if name in shapes and name not in weights
        )
        done = ReshapingReport(
            reshaping.methods,
            reshaping.before,
            reshaping.after,
            reshaping.refused,
            reshaping.findings,
            reshaping.corrected,
            reshaping.uncorrected,
            reshaping.factored,
        )
        return Report(tuple(lines), other, self.quality, self.compute, self.rounding_error, other + cut, done)

    def calibrate(self, calibration: Iterable[Inputs]) -> CompiledModel:
        """This model with the ranges of its activations measured anew; the graph is shared, and stays as it is.

        Ranges belong to the weights they were measured with. After training, an export without this call has every
        image measured while the model runs. Raises CalibrationError.
        """
        batches = read_batches(calibration, self.signature)
        ranges = measure(self.graph_module, self.compute, batches)
        lost = rounding_error(self.graph_module, self.compute, ranges.of, self.samples)
        return dataclasses.replace(self, ranges=ranges, rounding_error=lost)

    def export_onnx(self, path: str | os.PathLike[str], show: bool = True) -> tuple[Check, ...]:
        """Write one ONNX file, checked against the compressed graph before it takes its place at `path`.

        show: say what is being done, at a terminal.

        Returns the checks made (none with `verify=False`). Raises ExportError, VerificationError, ArtifactError;
        whatever stood at `path` then stands there still.
        """
        self.check_finite()
        target = Path(path)
        graph, ranges = self.graph_module, self.ranges.valid(self.graph_module)
        with progress("lowering to ONNX", None, show):
            lowered = lower_onnx.lower(graph, self.signature, self.samples[0], self.compute, ranges)
        with staged(target) as stage:
            file = lower_onnx.write(lowered.model, stage / target.name)
            if not self.verify:
                return ()
            partial = partial_layers(graph, self.compute)
            subject = Subject(file, flat_copy(graph), self.signature, lowered.origin, partial)
            model = rounded(graph, self.compute, ranges) if self.compute != "float" else None
            with progress("verifying", None, show):
                return verify(subject, self.samples, model)

    def export_tvm(
        self,
        path: str | os.PathLike[str],
        target: Any = "cpu",
        tune: Tuning | None = None,
        show: bool = True,
    ) -> tuple[Check, ...]:
        """Write one shared library that TVM's runtime alone loads, our kernels and the weights inside. Its function
        `main` takes the inputs in their order, and returns a tuple of the outputs. A C++ compiler links it.

        path: its name ends in `.so`.
        target: "cpu", a library for this machine, on x86-64 for all CPUs of x86-64-v3, which have AVX2 and FMA (older
            ones end the process with an illegal instruction); "arm64", one for 64-bit ARM Linux, on any machine;
            "cuda", one for NVIDIA's GPUs from sm_80 on, on any machine with nvcc, which computes in float whatever
            `compute` says; or a `tvm.target.Target` for one of them, such as one whose `mcpu` is another.
        tune: search for better loops where no kernel of ours computes; the trials stay in its folder. For CPUs.
        show: say what is being done, at a terminal.

        Returns the checks made (none with `verify=False`); what cannot run here is compiled for this machine too, and
        that is checked. Raises ConfigError (without TVM, too), ExportError (what is missing to compile with, too),
        VerificationError, ArtifactError; whatever stood at `path` then stands there still.
        """
        check_library_name(path)
        with needed_by("export_tvm"):
            from hashcompile.lower import tvm as lower_tvm
            from hashcompile.lower import tvm_library
        if tune is not None and not isinstance(tune, Tuning):
            raise ConfigError(f"tune={tune!r}: wanted hashcompile.Tuning(folder, trials)")
        if tune is not None and wants_cuda(target):
            raise ConfigError(
                "tune: its trials run on a CPU; a library for CUDA has the loops of TVM's own rules"
            )
        where = tvm_library.platform(target, show)
        self.check_finite()
        graph, ranges = self.graph_module, self.ranges.valid(self.graph_module)
        compute = where.to.compute(self.compute)
        taken = (graph, self.signature, self.samples[0], compute, ranges)
        with progress("lowering to TVM", None, show):
            lowered = lower_tvm.lower(*taken, to=where.to)
        tuned = None
        if tune is not None:
            from hashcompile.lower import tvm_tuning

            sizes = self.signature.sized(self.samples[0], tune.batch)
            tuned = tvm_tuning.tuned(lowered.module, where.target, sizes, tune, show)

        def inside(batches: Sequence[Batch]) -> list[Values]:
            exposed = lower_tvm.lower(*taken, expose=True, to=where.to)
            return [*tvm_library.values_inside(exposed, where, batches, tuned)]

        with staged(path) as stage:
            file = stage / Path(path).name
            with progress("compiling", None, show):
                tvm_library.build(lowered, where, file, tuned)
            if not self.verify:
                return ()
            model = rounded(graph, compute, ranges) if compute != "float" else None
            partial = partial_layers(graph, compute) if where.to.regions else {}
            with progress("verifying", None, show), tvm_library.running(lowered, where, file, tuned) as run:
                runtime = "tvm" if where.device is not None else TVM_HERE
                reference = flat_copy(graph)
                return verify_library(
                    file.name, run, inside, reference, self.signature, self.samples, model, partial, runtime
                )

    def recommend(
        self,
        target: Any = "cpu",
        batch: int | None = None,
        inputs: Inputs | None = None,
        prefer: Criterion = "latency",
        threads: int = 2,
        runs: int = 200,
        on: str | None = None,
        python: str = "python3",
        tune: Tuning | None = None,
        show: bool = True,
    ) -> Recommendation:
        """Make both files, measure them as `hashcompile bench` does, and say which to ship, and why.

        target: of the library, as in `export_tvm`.
        batch: samples a run, of the example inputs, repeated where there are fewer; None: as few as the model takes.
        inputs: others to measure on, as they are.
        prefer: what decides where both differ in it: "latency", "memory", "size" or "load".
        on: measure over ssh on this machine, `user@host`, with the Python there that has the runtimes.
        tune: of the library, as in `export_tvm`.
        show: say what is being done, at a terminal.

        Without TVM, and where one file cannot be made, the other is measured alone, and the reasons say so.

        Raises ConfigError, InputError, WeightError, ArtifactError; where neither can be made,
        ExportError or VerificationError.
        """
        if target == "arm64" and on is None and machine() not in ("aarch64", "arm64"):
            raise ConfigError(
                f"a library for ARM64 cannot be measured on this machine, which is {machine()}: name a device that ssh "
                'knows, on="user@device" (--on)'
            )
        takes = self.signature
        if wants_cuda(target) and on is None and installed() and not finds_gpu():
            raise ConfigError(
                "a library for CUDA cannot be measured on this machine, where TVM finds no GPU: name another that ssh "
                'knows, on="user@device" (--on)'
            )
        if wants_cuda(target) and prefer == "memory":
            raise ConfigError('prefer="memory": what a library for CUDA takes of the GPU\'s is not measured')
        given = takes.sized(self.samples[0], batch) if inputs is None else takes.read(inputs)
        exports: dict[Format, Callable[[Path], object]] = {"onnx": lambda path: self.export_onnx(path, show)}
        lacking: dict[Format, str] = {}
        if installed():
            exports["tvm"] = lambda path: self.export_tvm(path, target, tune, show)
        else:
            lacking["tvm"] = f"TVM is not installed: {ADVICE}"
        return recommend(
            Ways(exports, lacking),
            {name: value.numpy() for name, value in zip(takes.names, given, strict=True)},
            Settings(threads, runs),
            prefer,
            Host(on, python) if on is not None else None,
            show,
        )

    def check_finite(self) -> None:
        """Raise WeightError where training left a tensor with NaN or infinite values."""
        for name, tensor in self.graph_module.named_parameters():
            if not bool(torch.isfinite(tensor).all()):
                raise WeightError(f"{name} holds NaN or infinite values: nothing was written")

    def __repr__(self) -> str:
        report = self.report()
        sizes = f"{format_bytes(report.dense_nbytes)} -> {format_bytes(report.nbytes)}"
        return f"CompiledModel({len(self.plan.encoded)} of {len(self.plan)} layers encoded, {sizes})"

    def save(self, path: str | os.PathLike[str], entropy: bool = True) -> None:
        """Write a `.hc` file, from which `load` gives this model back.

        entropy: store codes and places entropy-coded where that is smaller, and deflate the rest where it pays.

        Raises ArtifactError.
        """
        plan = self.plan.describe()
        extra = {
            "compute": self.compute,
            "plan": plan["decisions"],
            "reshaping": plan["reshaping"],
            "errors": self.errors,
            "quality": dataclasses.asdict(self.quality) if self.quality else None,
            "verify": self.verify,
            "ranges": self.ranges.describe(),
            "rounding_error": self.rounding_error,
        }
        samples = [self.signature.first(self.samples[0], STORED)]
        container.write(path, container.Contents(self.graph_module, self.signature, samples, extra), entropy)


def load(path: str | os.PathLike[str]) -> CompiledModel:
    """Read a `.hc` file. Raises ArtifactError for a file that is not ours, truncated, corrupt or of another version."""
    graph, signature, samples, extra = container.read(path)
    if extra.get("compute") not in COMPUTES:
        raise ArtifactError(f"{path} computes in {extra.get('compute')!r}, which this version does not know")
    try:
        plan = Plan.restore({"decisions": extra["plan"], "reshaping": extra.get("reshaping")})
        quality = Quality(**extra["quality"]) if extra["quality"] else None
        errors = {str(name): float(error) for name, error in extra["errors"].items()}
        ranges = Ranges.restore(extra.get("ranges", Ranges().describe()))
        error = extra.get("rounding_error")
        error = None if error is None else float(error)
    except (KeyError, TypeError, ValueError, AttributeError, HashcompileError) as error:
        raise ArtifactError(f"{path} is damaged: its plan or its figures cannot be read: {error}") from error
    if ranges.of and not ranges.valid(graph):
        warnings.warn(
            f"{path}: its ranges of activations belong to other nodes or weights, and every input is measured instead: "
            "compiled.calibrate(inputs) finds them again",
            stacklevel=2,
        )
    graph.meta[RESHAPING] = plan.reshaping
    graph.meta["tied"] = dict(plan.reshaping.tied) if plan.reshaping else {}
    graph.meta[PARTS] = dict(plan.reshaping.parts) if plan.reshaping else {}
    return CompiledModel(
        graph_module=graph,
        plan=plan,
        compute=extra["compute"],
        signature=signature,
        samples=samples,
        errors=errors,
        quality=quality,
        verify=bool(extra.get("verify", True)),
        ranges=ranges,
        rounding_error=error,
    )


def rounding_error(
    graph: CompressedGraph, compute: Compute, ranges: Mapping[str, Range], samples: Sequence[Batch]
) -> float | None:
    """How far the rounding of the kernels moves the outputs, relative to their size; None where nothing is rounded."""
    if compute == "float":
        return None
    quality = quality_of(sweep(rounded(graph, compute, ranges), samples), sweep(flat_copy(graph), samples))
    return quality.relative_error if quality else None


def quality_of(compressed: Sequence[Any], original: Sequence[Any]) -> Quality | None:
    """The compressed outputs against the original ones, all as one vector; None where no output is a float."""
    pairs = [
        (a.detach().double().flatten(), b.detach().double().flatten())
        for a, b in zip(pytree.tree_leaves(list(compressed)), pytree.tree_leaves(list(original)), strict=True)
        if isinstance(a, Tensor) and a.is_floating_point()
    ]
    if not pairs:
        return None
    got, wanted = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    error = float((got - wanted).norm() / wanted.norm().clamp_min(1e-300))
    return Quality(error, float(torch.nn.functional.cosine_similarity(got, wanted, dim=0)))
