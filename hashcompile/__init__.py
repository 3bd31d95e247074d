"""hashcompile: compile a trained PyTorch model to a small, fast, verified artifact."""

from hashcompile import recipes
from hashcompile.artifact import CompiledModel, load
from hashcompile.check_tvm import check_tvm
from hashcompile.compiler import compile
from hashcompile.core.errors import (
    ArtifactError,
    CalibrationError,
    CaptureError,
    ConfigError,
    ExportError,
    GraphError,
    HashcompileError,
    InputError,
    VerificationError,
    WeightError,
)
from hashcompile.core.kept import Refusal
from hashcompile.core.reshaping import Corrected, Factored, Finding, Reshaping, Size, Uncorrected
from hashcompile.lower.tuning import Tuning
from hashcompile.passes.codebook import Codebook, Int8
from hashcompile.passes.hashed import Hashed
from hashcompile.passes.interpolate import Interpolative
from hashcompile.passes.lowrank import LowRank, Sampled
from hashcompile.passes.merge import MergeChannels, RehashSchedule
from hashcompile.passes.prune import PruneChannels
from hashcompile.passes.sparse import PruningSchedule, Sparse
from hashcompile.passes.wide import Wide
from hashcompile.plan import Decision, Plan
from hashcompile.recommend import Recommendation
from hashcompile.report import LayerReport, Quality, Report
from hashcompile.training import CodebookTraining
from hashcompile.verify import Check

__version__ = "0.1.0"

__all__ = [
    "ArtifactError",
    "CalibrationError",
    "CaptureError",
    "Check",
    "Codebook",
    "CodebookTraining",
    "CompiledModel",
    "ConfigError",
    "Corrected",
    "Decision",
    "ExportError",
    "Factored",
    "Finding",
    "GraphError",
    "HashcompileError",
    "Hashed",
    "InputError",
    "Int8",
    "Interpolative",
    "LayerReport",
    "LowRank",
    "MergeChannels",
    "Plan",
    "PruneChannels",
    "PruningSchedule",
    "Quality",
    "Recommendation",
    "Refusal",
    "RehashSchedule",
    "Report",
    "Reshaping",
    "Sampled",
    "Size",
    "Sparse",
    "Tuning",
    "Uncorrected",
    "VerificationError",
    "WeightError",
    "Wide",
    "check_tvm",
    "compile",
    "load",
    "recipes",
]
