"""Layers of which a kernel computes some outputs, its candidates, and gives all others as -infinity: what there is to
compare.

The graph computes every output. So the file is run once with the outputs of such layers exposed, which tells its
candidates; then the graph is asked what it would have given for these. That they are the right ones is a question of
its own: they must be those of the index in PyTorch, but for inputs that stand at a hyperplane, which rounding turns.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, fx
from torch.utils._pytree import tree_map_only

from hashcompile.core.encoded import Candidates
from hashcompile.core.errors import VerificationError
from hashcompile.core.graph import STANDS_FOR, CompressedGraph, impure
from hashcompile.core.method import Compute
from hashcompile.lower.select import select

Masks = Mapping[str, Tensor]  # node -> (..., N) bool, the outputs that were computed

COMMON = 0.5  # of the candidates of file and index at the least, where rounded activations move some


def partial_layers(graph: CompressedGraph, compute: Compute) -> dict[str, Candidates]:
    """The layers that our kernels compute in part, by the names of their nodes."""
    selection = select(graph, compute)
    codes = {
        reader: selection.codes[name] for name, readers in selection.readers.items() for reader in readers
    }
    found = {node.name: codes[node].candidates for node in selection.ops}
    return {name: candidates for name, candidates in found.items() if candidates is not None}


def record(graph: fx.GraphModule, inputs: Sequence[Tensor], masks: Masks) -> dict[str, Any]:
    """The value of every node of a graph as it was computed, by name, where some outputs of layers are not; later nodes
    may write over the same tensor.
    """
    values: dict[str, Any] = {}
    overwritten = any(map(impure, graph.graph.nodes))

    class Recorder(fx.Interpreter):
        def run_node(self, node: fx.Node) -> Any:
            name, value = node.meta.get(STANDS_FOR, node.name), super().run_node(node)
            value = torch.where(masks[name], value, -torch.inf) if name in masks else value
            kept = overwritten and node.op not in ("get_attr", "output")
            values[name] = tree_map_only(Tensor, torch.clone, value) if kept else value
            return value

    with torch.no_grad():
        Recorder(graph).run(*inputs)
    return values


def expose(path: Path, values: Sequence[str], folder: str) -> Path:
    """A copy of a file that gives these values, too."""
    model = onnx.load(str(path))
    given = {output.name for output in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in values if name not in given)
    copy = Path(folder) / path.name
    onnx.save(model, str(copy), save_as_external_data=model.ByteSize() > 1 << 30)
    return copy


def computed(
    open_session: Callable[[Path], Any],
    path: Path,
    values: Mapping[str, str],
    feeds: Sequence[Mapping[str, Any]],
) -> list[dict[str, Tensor]]:
    """For each feed, what was computed of each layer; `values` is layer -> ONNX value."""
    with tempfile.TemporaryDirectory() as folder:
        session = open_session(expose(path, list(values.values()), folder))
        return [
            {
                layer: torch.from_numpy(array) != -torch.inf
                for layer, array in zip(values, session.run(list(values.values()), dict(feed)), strict=True)
            }
            for feed in feeds
        ]


def check_candidates(
    graph: fx.GraphModule, batch: Sequence[Tensor], masks: Masks, partial: Mapping[str, Candidates]
) -> None:
    """Raise VerificationError where a file computes other outputs than the index asks for.

    graph: with activations rounded as the kernels round them.
    """
    values = record(graph, batch, masks)
    nodes = {node.meta.get(STANDS_FOR, node.name): node for node in graph.graph.nodes}
    for name, candidates in partial.items():
        source: Any = nodes[name].args[0]
        wanted = candidates(values[source.meta.get(STANDS_FOR, source.name)])
        either = int((wanted | masks[name]).sum())
        share = int((wanted & masks[name]).sum()) / either if either else 1.0
        if share < COMMON:
            raise VerificationError(
                f"{name} computes other outputs than its index asks for: {share:.1%} of both are common, "
                f"wanted {COMMON:.0%}"
            )
