"""The hashing trick: every weight is one of a few shared values, found by a hash of its place."""

from hashcompile.core.method import Method
from hashcompile.passes.hashed.config import Hashed
from hashcompile.passes.hashed.encode import encode, refuse
from hashcompile.passes.hashed.onnx import decode, fused
from hashcompile.passes.hashed.survey import survey
from hashcompile.passes.hashed.weight import HashedWeight

METHOD = Method(
    name="hashed",
    config=Hashed,
    code=HashedWeight,
    refuse=refuse,
    survey=survey,
    encode=encode,
    recall=None,
    onnx_fused=fused,
    onnx_decode=decode,
)

__all__ = ["METHOD", "Hashed", "HashedWeight"]
