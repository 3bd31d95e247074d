"""The methods. Each lives in a room of its own; rooms never import one another."""

from typing import Any

from hashcompile.core.encoded import EncodedWeight
from hashcompile.core.errors import ArtifactError, ConfigError
from hashcompile.core.method import Method
from hashcompile.passes import codebook

METHODS: tuple[Method, ...] = (codebook.METHOD, codebook.INT8)


def method_of(config: Any) -> Method:
    """The method that a user's config asks for. Raises ConfigError."""
    for method in METHODS:
        if isinstance(config, method.config):
            return method
    known = ", ".join(f"hc.{method.config.__name__}" for method in METHODS)
    raise ConfigError(f"{config!r} is not a method config; known: {known}")


def method_of_code(code: EncodedWeight) -> Method:
    """A method that writes such codes: how they are lowered and stored does not depend on which of them did."""
    return next(method for method in METHODS if isinstance(code, method.code))


def method_named(name: str) -> Method:
    """The method that an artifact names. Raises ArtifactError."""
    for method in METHODS:
        if method.name == name:
            return method
    raise ArtifactError(f"encoded by {name!r}, which this version does not know")
