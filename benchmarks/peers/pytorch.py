"""PyTorch itself, eager and through `torch.compile`."""

from __future__ import annotations

from pathlib import Path

from contest.peer import TORCH_ENGINE, Peer
from contest.subject import Subject


def prepare(subject: Subject, folder: Path) -> list[str]:
    """Nothing: the worker makes the model from its recipe."""
    return []


def peer(name: str, what: str, compiled: bool) -> Peer:
    return Peer(name, f"PyTorch, {what}", ("torch",), TORCH_ENGINE, prepare, {"compile": compiled})


EAGER = peer("torch eager", "eager, inference_mode", compiled=False)
COMPILED = peer("torch.compile", "torch.compile, static shapes", compiled=True)
