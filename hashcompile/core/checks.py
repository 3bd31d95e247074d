"""What arguments are, and whether a checkpoint is that of the same settings."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any, TypeGuard

from hashcompile.core.errors import ConfigError

SEEDS = 2**63  # a generator's seed is below


def is_whole(value: Any) -> TypeGuard[int]:
    """True is no number."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> TypeGuard[int | float]:
    """A finite one."""
    return is_whole(value) or (isinstance(value, float) and math.isfinite(value))


def is_seed(value: Any) -> TypeGuard[int]:
    """What torch's generators take."""
    return is_whole(value) and 0 <= value < SEEDS


def check_state(
    owner: str, state: Mapping[str, Any], settings: Mapping[str, Any], others: Collection[str]
) -> None:
    """Raises ConfigError for a `state_dict` that lacks an entry, or whose settings are not these; lists that a file
    gives for tuples are as good."""
    for name in (*settings, *others):
        if name not in state:
            raise ConfigError(
                f"{owner}.load_state_dict: no entry {name!r}; wanted what {owner}.state_dict() gives"
            )
    for name, value in settings.items():
        found = tuple(state[name]) if isinstance(state[name], list) else state[name]
        if found != value:
            raise ConfigError(
                f"{owner}.load_state_dict: the state is that of {name}={state[name]!r}, this is of {name}={value!r}"
            )


def counted(owner: str, name: str, value: Any) -> int:
    """A number of steps. Raises ConfigError."""
    if not is_whole(value) or value < 0:
        raise ConfigError(
            f"{owner}.load_state_dict: {name}={value!r}; wanted a whole number of steps, at least 0"
        )
    return value
