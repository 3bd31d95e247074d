"""Codebooks: each weight is an index into a small table of allowed values."""

from dataclasses import replace

from hashcompile.core.method import Method
from hashcompile.passes.codebook.config import Codebook, Int8
from hashcompile.passes.codebook.encode import encode, recall, refuse
from hashcompile.passes.codebook.learning import LearningCodebook
from hashcompile.passes.codebook.onnx import decode, fused
from hashcompile.passes.codebook.weight import CodebookWeight

METHOD = Method(
    name="codebook",
    config=Codebook,
    code=CodebookWeight,
    refuse=refuse,
    survey=None,
    encode=encode,
    recall=recall,
    onnx_fused=fused,
    onnx_decode=decode,
)

INT8 = replace(METHOD, name="int8", config=Int8)

__all__ = ["INT8", "METHOD", "Codebook", "CodebookWeight", "Int8", "LearningCodebook"]
