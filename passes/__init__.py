"""The methods. Each lives in a room of its own; rooms never import one another."""

from typing import Any

from hashcompile.core.encoded import EncodedWeight
from hashcompile.core.errors import ArtifactError, ConfigError
from hashcompile.core.method import Method, Rewrite
from hashcompile.passes import codebook, hashed, interpolate, lowrank, merge, prune, sparse, wide

METHODS: tuple[Method, ...] = (codebook.METHOD, codebook.INT8, hashed.METHOD, sparse.METHOD, wide.METHOD)
REWRITES: tuple[Rewrite, ...] = (
    prune.REWRITE,
    merge.REWRITE,
    interpolate.REWRITE,
    lowrank.REWRITE,
    lowrank.SAMPLED,
)


def known_config(config: Any) -> None:
    """Raise ConfigError for what is no method's config."""
    configs = [method.config for method in METHODS] + [rewrite.config for rewrite in REWRITES]
    if not isinstance(config, tuple(configs)):
        known = ", ".join(f"hc.{each.__name__}" for each in configs)
        raise ConfigError(f"{config!r} is not a method config; known: {known}")


def method_of(config: Any) -> Method:
    """The method that encodes as a user's config asks for."""
    return next(method for method in METHODS if isinstance(config, method.config))


def rewrite_of(config: Any) -> Rewrite | None:
    """The rewrite that a user's config asks for; None for a method that encodes."""
    return next((rewrite for rewrite in REWRITES if isinstance(config, rewrite.config)), None)


def method_of_code(code: EncodedWeight) -> Method:
    """A method that writes such codes: how they are lowered and stored does not depend on which of them did."""
    return next(method for method in METHODS if isinstance(code, method.code))


def method_named(name: str) -> Method:
    """The method that an artifact names. Raises ArtifactError."""
    for method in METHODS:
        if method.name == name:
            return method
    raise ArtifactError(f"encoded by {name!r}, which this version does not know")
