"""The errors of the runtime. Each says what came, what was wanted, and what to do."""


class RuntimeLibraryError(ImportError):
    """The native library is missing, or of another version than this package."""


class NativeError(ValueError):
    """A kernel refused its arguments. `code` is the C ABI's (HC_INVALID_ARGUMENT ...)."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class ModelError(ValueError):
    """A model that ONNX Runtime can't load."""
