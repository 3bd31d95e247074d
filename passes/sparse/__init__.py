"""Sparse weights: most of them are zero, and only the others are stored."""

from hashcompile.core.method import Method
from hashcompile.passes.sparse.config import Sparse
from hashcompile.passes.sparse.encode import encode, recall, refuse
from hashcompile.passes.sparse.onnx import decode, fused
from hashcompile.passes.sparse.schedule import PruningSchedule
from hashcompile.passes.sparse.survey import survey
from hashcompile.passes.sparse.weight import SparseWeight

METHOD = Method(
    name="sparse",
    config=Sparse,
    code=SparseWeight,  # type: ignore[type-abstract]  # `restore` gives one of two
    refuse=refuse,
    survey=survey,
    encode=encode,
    recall=recall,
    onnx_fused=fused,
    onnx_decode=decode,
)

__all__ = ["METHOD", "PruningSchedule", "Sparse", "SparseWeight"]
