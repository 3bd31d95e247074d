"""Wide output layers: of tens of thousands of rows those are computed that a hash of the input finds."""

from hashcompile.core.method import Method
from hashcompile.passes.wide.config import Wide
from hashcompile.passes.wide.encode import encode, refuse
from hashcompile.passes.wide.onnx import decode, fused
from hashcompile.passes.wide.survey import survey
from hashcompile.passes.wide.weight import WideWeight

METHOD = Method(
    name="wide",
    config=Wide,
    code=WideWeight,
    refuse=refuse,
    survey=survey,
    encode=encode,
    recall=None,
    onnx_fused=fused,
    onnx_decode=decode,
)

__all__ = ["METHOD", "Wide", "WideWeight"]
