"""Where a graph is lowered to: what the runtime there brings along, and which kernels of ours it has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hashcompile.core.errors import ConfigError
from hashcompile.core.method import Compute
from hashcompile.core.onnx_op import OnnxOp
from hashcompile.core.packing import PAIR

TARGETS = ("cpu", "arm64", "cuda")  # of TVM libraries, by name


@dataclass(frozen=True)
class Destination:
    """`bodies`: its runtime reads bodies, and has fast kernels of its own for what is dense.

    only: the layers that kernels of ours compute there, each by itself; None: kernels of ours compute all they can.
    """

    bodies: bool
    only: frozenset[str] | None = None

    @property
    def regions(self) -> bool:
        """Do kernels of ours compute more than layers of codes: what follows them, norms, attention, what is dense?"""
        return self.only is None

    def compute(self, wanted: Compute) -> Compute:
        """Kernels that compute single layers compute in float."""
        return wanted if self.regions else "float"

    def computes(self, op: OnnxOp, rows: int) -> bool:
        """Has a layer of codes, of a weight of so many rows, its operator there? Else it reads a dense weight."""
        if self.only is None:
            return self.bodies or op.kernel
        group = op.attributes.get("group", 1)
        assert isinstance(group, int)
        small = group > 1 and rows // group < PAIR  # groups of fewer rows than a warp has
        return op.operator in self.only and not small


def wants_cuda(target: Any) -> bool:
    """Is it "cuda", or a tvm.target.Target of that kind?"""
    return target == "cuda" or getattr(getattr(target, "kind", None), "name", None) == "cuda"


def tvm_destination(target: Any) -> Destination:
    """Of a TVM library for a target of `export_tvm`. Raises ConfigError for a name that is none."""
    if isinstance(target, str) and target not in TARGETS:
        raise ConfigError(f"target={target!r}: wanted {', '.join(TARGETS)}, or a tvm.target.Target")
    return TVM_CUDA if wants_cuda(target) else TVM


ONNX = Destination(bodies=True)
TVM = Destination(bodies=False)
TVM_CUDA = Destination(
    bodies=False, only=frozenset({"CodebookLinear", "CodebookConv", "CodebookEmbedding", "HashedLinear"})
)
