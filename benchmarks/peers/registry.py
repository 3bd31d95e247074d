"""All peers, ours first, in the order of the tables."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatch

from contest.peer import OURS, Peer

from . import (
    onnxruntime_dynamic,
    onnxruntime_fp32,
    onnxruntime_nbits,
    onnxruntime_static,
    openvino_int8,
    openvino_plain,
    openvino_weights,
    ours,
    pytorch,
    tvm,
)

PEERS: tuple[Peer, ...] = (
    ours.PEER,
    onnxruntime_fp32.PEER,
    onnxruntime_dynamic.PEER,
    onnxruntime_static.PEER,
    *onnxruntime_nbits.PEERS,
    openvino_plain.PEER,
    openvino_int8.PEER,
    *openvino_weights.PEERS,
    pytorch.EAGER,
    pytorch.COMPILED,
    *tvm.PEERS,
)


def chosen(patterns: Sequence[str]) -> list[Peer]:
    """Ours, and the peers whose names match a glob; all without one. Raises ValueError for a glob without a match."""
    for pattern in patterns:
        if not any(fnmatch(peer.name, pattern) for peer in PEERS):
            raise ValueError(
                f"no peer is named {pattern!r}; there is {', '.join(peer.name for peer in PEERS)}"
            )
    return [
        peer
        for peer in PEERS
        if not patterns or peer.name == OURS or any(fnmatch(peer.name, pattern) for pattern in patterns)
    ]
