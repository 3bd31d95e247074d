"""The record of a compression method: every field is required, so a forgotten lowering fails at import.

A `Method` encodes weights, layer by layer. A `Rewrite` changes the shapes of the graph itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from torch import Tensor, fx, nn

from hashcompile.core.encoded import EncodedWeight
from hashcompile.core.errors import ConfigError
from hashcompile.core.graph import CompressedGraph
from hashcompile.core.kept import Kept, Refusal
from hashcompile.core.layers import Kind, Layer
from hashcompile.core.onnx_op import OnnxOp
from hashcompile.core.reshaping import Corrected, Factored, Finding, Uncorrected
from hashcompile.core.signature import Batch

Compute = Literal["int8", "float", "bf16"]  # the arithmetic of our kernels
COMPUTES: tuple[Compute, ...] = get_args(Compute)

CODES: dict[Compute, int] = {"float": 0, "int8": 1, "bf16": 2}  # the attribute `compute` of our nodes


def check_compute(compute: Any) -> None:
    """Raise ConfigError for what is no arithmetic of ours."""
    if compute not in COMPUTES:
        raise ConfigError(f'compute={compute!r}: wanted "int8", "float" or "bf16"')


def compute_of(op: OnnxOp) -> Compute | None:
    """The arithmetic of a node of ours; None where it has but one."""
    code = op.attributes.get("compute")
    return next((compute for compute, number in CODES.items() if number == code), None)


@dataclass(frozen=True)
class Seen:
    """A layer as a survey of the whole model saw it: some of its inputs, one by one, and its bias."""

    inputs: Tensor | None  # (M, K) float32, at the original model; None without calibration
    bias: Tensor | None  # (N,) float32


@dataclass(frozen=True)
class Pool:
    """Values that several layers share."""

    values: nn.Parameter  # (K,) float32, one for all of them
    weights: int  # of all these layers
    size: float  # root mean square of all these weights: that of the values


@dataclass(frozen=True)
class Statistics:
    """What calibration saw at the inputs of one layer. X are the inputs behind the compressed prefix, X0 those of the
    original model on the same samples; S sets of inputs, to which S equal consecutive sets of rows belong: the groups
    of a convolution, else one.
    """

    count: int  # samples (tokens, output pixels, ids) behind the sums
    independent: float = (
        0.0  # samples that say something new: no more than the numbers that were read, over K
    )
    gram: Tensor | None = None  # (S, K, K) float64, X'X
    cross: Tensor | None = None  # (S, K, K) float64, X0'X
    gram_before: Tensor | None = None  # (S, K, K) float64, X0'X0
    mean: Tensor | None = None  # (S, K) float64, of X
    mean_before: Tensor | None = None  # (S, K) float64, of X0
    row_counts: Tensor | None = None  # (N,) float64, how often each row of an embedding was read
    kept: Tensor | None = None  # (N, K) bool, the weights that a survey of the whole model lets stay
    seen: Seen | None = None  # by a survey that looked
    pool: Pool | None = None  # that the layer shares with others


@dataclass(frozen=True)
class Survey:
    """What a method decides with all layers in view, before it encodes the first."""

    kept: Mapping[str, Tensor] = field(
        default_factory=dict
    )  # (N, K) bool by parameter: the weights that stay
    seen: Mapping[str, Seen] = field(default_factory=dict)  # by parameter
    pools: Mapping[str, Pool] = field(default_factory=dict)  # by parameter
    untouched: bool = False  # are weights and biases to stay what they are? Else data correct them


@dataclass(frozen=True)
class Method:
    """One room under `passes/`."""

    name: str
    config: type  # frozen dataclass that the user writes
    code: type[EncodedWeight]
    refuse: Callable[[Layer, Any], str | None]  # (layer, config) -> why this layer is better left alone
    survey: Callable[[Any, Sequence[Layer], CompressedGraph, Batch, Sequence[Batch]], Survey] | None
    # (config, layers, graph, example, calibration) -> what only the whole model tells; None where every layer is alone
    encode: Callable[[Tensor, Layer, Any, Statistics, Compute], EncodedWeight]
    # (weight, layer, config, statistics, compute) -> the code
    recall: Callable[[EncodedWeight, Any], EncodedWeight | None] | None
    # (code that a weight has already, config) -> that code, where it is what the config asks for
    onnx_fused: Callable[[Any, fx.Node, Kind, Compute], OnnxOp | None]
    # (code, consumer, its kind, compute) -> decode + consumer as one node; None where no kernel does both
    onnx_decode: Callable[[Any], OnnxOp]  # code -> the dense weight, for any other consumer


@dataclass(frozen=True)
class Scope:
    """What a rewrite may change, and what it may look at."""

    graph: CompressedGraph  # rewritten in place
    layers: frozenset[str]  # names of the layers whose outputs may be cut or merged
    example: Batch  # flat inputs, every symbolic size at least 2
    sample: Batch  # one sample of them: what costs are reported of
    batches: Sequence[Batch]  # calibration; empty without data


@dataclass(frozen=True)
class Outcome:
    """What a rewrite did: indices into the tensors that it found, and the channels that it had to leave."""

    kept: Kept
    refused: tuple[Refusal, ...] = ()
    findings: tuple[Finding, ...] = ()
    corrected: tuple[Corrected, ...] = ()
    uncorrected: tuple[Uncorrected, ...] = ()
    factored: tuple[Factored, ...] = ()


@dataclass(frozen=True)
class Rewrite:
    """A room under `passes/` that changes shapes."""

    name: str
    config: type  # frozen dataclass that the user writes
    apply: Callable[[Any, Scope], Outcome]  # (config, scope) -> what became of the graph
