"""Small networks, each with one thing that cutting channels could get wrong.

`CUT` are those of which something can go; `WHOLE` those that must stay as they are.
"""

from tests.channels.adversarial import (
    attention,
    convolutions,
    experts,
    memory,
    norms_and_gates,
    parts,
    refused,
    sequences,
    streams,
    views,
)
from tests.channels.adversarial.network import CUT, WHOLE, Make

__all__ = [
    "CUT",
    "WHOLE",
    "Make",
    "attention",
    "convolutions",
    "experts",
    "memory",
    "norms_and_gates",
    "parts",
    "refused",
    "sequences",
    "streams",
    "views",
]
