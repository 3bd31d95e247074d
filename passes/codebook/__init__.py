"""Codebooks: each weight is an index into a small table of allowed values."""

from hashcompile.core.method import Method
from hashcompile.passes.codebook.config import Codebook
from hashcompile.passes.codebook.encode import encode, refuse
from hashcompile.passes.codebook.onnx import decode, fused
from hashcompile.passes.codebook.weight import CodebookWeight

METHOD = Method(
    name="codebook",
    config=Codebook,
    code=CodebookWeight,
    refuse=refuse,
    encode=encode,
    onnx_fused=fused,
    onnx_decode=decode,
)

__all__ = ["METHOD", "Codebook", "CodebookWeight"]
