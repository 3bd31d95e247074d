"""Where a graph is lowered to: what the runtime there brings along, and which kernels of ours it has."""

from __future__ import annotations

from dataclasses import dataclass

from hashcompile.core.onnx_op import OnnxOp


@dataclass(frozen=True)
class Destination:
    bodies: bool  # its runtime reads bodies, and has fast kernels of its own for what is dense
    only: frozenset[str] | None = None  # layers that our kernels there compute, each by itself; None: all there is

    @property
    def regions(self) -> bool:
        """Do kernels of ours compute more than a layer of codes: what follows it, norms, attention, pools, dense layers?"""
        return self.only is None

    def computes(self, op: OnnxOp) -> bool:
        """Has a layer of codes its operator there? Else it reads a dense weight."""
        if self.only is not None:
            return op.operator in self.only
        return self.bodies or op.kernel


ONNX = Destination(bodies=True)
TVM = Destination(bodies=False)
TVM_CUDA = Destination(
    bodies=False, only=frozenset({"CodebookLinear", "CodebookConv", "CodebookEmbedding", "HashedLinear"})
)
