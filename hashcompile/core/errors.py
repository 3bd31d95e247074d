"""Every error a user can meet. Each names the layer or file, what came, what was wanted, and what to do."""


class HashcompileError(Exception):
    """Base of all errors that hashcompile raises on purpose."""


class ConfigError(HashcompileError, ValueError):
    """A method or an option that cannot mean anything: unknown bits, a glob that matches no layer."""


class CaptureError(HashcompileError):
    """The model could not be captured as a graph; names the user's source line."""


class WeightError(HashcompileError):
    """A weight that cannot be encoded: NaN or infinite values, an unsupported dtype."""


class CalibrationError(HashcompileError):
    """Calibration data that is empty, misshapen or not finite."""


class GraphError(HashcompileError):
    """A pass broke an invariant of the graph: a defect of a pass, never of the user's model."""


class ExportError(HashcompileError):
    """The compressed graph could not be lowered, or its file could not be written."""


class VerificationError(HashcompileError):
    """The artifact and the compressed graph disagree; names the first node that differs."""


class ArtifactError(HashcompileError):
    """A file that is not ours, is truncated, corrupt, or of an unknown version."""


class InputError(HashcompileError, TypeError):
    """Inputs of a compiled model whose number, names, shapes or dtypes do not fit."""
