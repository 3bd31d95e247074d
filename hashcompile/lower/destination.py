"""Where a graph is lowered to: what the runtime there brings along, and which kernels of ours it has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hashcompile.core.onnx_op import OnnxOp


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

    def computes(self, op: OnnxOp) -> bool:
        """Has a layer of codes its operator there? Else it reads a dense weight."""
        if self.only is not None:
            return op.operator in self.only
        return self.bodies or op.kernel


def wants_cuda(target: Any) -> bool:
    """Is it "cuda", or a tvm.target.Target of that kind?"""
    return target == "cuda" or getattr(getattr(target, "kind", None), "name", None) == "cuda"


ONNX = Destination(bodies=True)
TVM = Destination(bodies=False)
TVM_CUDA = Destination(
    bodies=False, only=frozenset({"CodebookLinear", "CodebookConv", "CodebookEmbedding", "HashedLinear"})
)
