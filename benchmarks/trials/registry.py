"""The trials by name. Each is imported when it runs: it may need packages that another does not."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from importlib import import_module

from .claims import Claim
from .setting import Setting


class Trial(StrEnum):
    minilm = "minilm"
    resnet50 = "resnet50"
    resnet18 = "resnet18"
    mobilenet_v2 = "mobilenet_v2"
    digits = "digits"
    resnet20 = "resnet20"
    cifar = "cifar"
    stories = "stories"


_NETWORKS = (Trial.resnet50, Trial.resnet18, Trial.mobilenet_v2)


def start(name: Trial, setting: Setting) -> Iterator[Claim]:
    if name in _NETWORKS:
        return import_module("trials.imagenet").trial(name.value, setting)
    return import_module(f"trials.{name}").trial(setting)
