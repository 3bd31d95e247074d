"""Every classifier of torchvision loses 30% of its units: exactly, and with 20% or more of its parameters."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

import hashcompile as hc
from hashcompile.core.layers import layers
from hashcompile.core.method import Scope
from hashcompile.passes.channels import ChannelGroups
from hashcompile.passes.prune.select import per_group
from hashcompile.passes.prune.units import scores_of
from tests.channels.exact import EXACT, captured, removal
from tests.channels.torchvision_models import available_memory, build, names, parameters

if find_spec("torchvision") is None:
    pytest.skip("torchvision is not installed", allow_module_level=True)

COPIES = 4  # of the parameters in float64, at the peak: 6.5 GiB for the 198 million of convnext_large


def each_model(*quick: str) -> pytest.MarkDecorator:
    """All of them, but those that are not quick are slow tests."""
    marked = (name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in names())
    return pytest.mark.parametrize("name", list(marked))


def skip_without_room(name: str) -> None:
    room, needed = available_memory(), 8 * COPIES * parameters(name) + 2**30
    if needed > room:
        pytest.skip(f"{name} needs {needed / 2**30:.0f} GiB of memory, and {room / 2**30:.0f} are free")


@each_model("mobilenet_v3_small", "resnet18", "squeezenet1_1")
def test_removal_is_exact(name: str) -> None:
    skip_without_room(name)
    model, images = build(name)
    whole = captured(model, images)
    del model
    scope = Scope(
        whole.graph, frozenset(layer.name for layer in layers(whole.graph)), whole.example, whole.example, ()
    )

    def least_important(channels: ChannelGroups) -> tuple:
        scores = scores_of(scope, channels.groups, [True] * len(channels.groups), "l2", None)
        return per_group(
            channels, scores, [int(0.3 * group.count + 0.5) for group in channels.groups]
        ).removed

    found = removal(whole, least_important)
    print(f"{name}: {found.lost:.1%} of the parameters went, relative error {found.error:.1g}")
    assert found.error < EXACT
    assert found.lost >= 0.2


@each_model("resnet18")
def test_the_file_agrees(name: str, tmp_path: Path) -> None:
    skip_without_room(name)
    model, images = build(name)
    compiled = hc.compile(model, (images,), method=hc.PruneChannels(amount=0.3), compute="float")
    assert compiled.plan.reshaping is not None
    before, after = compiled.plan.reshaping.before, compiled.plan.reshaping.after
    assert after.parameters <= 0.8 * before.parameters
    assert after.macs < before.macs
    checks = compiled.export_onnx(
        tmp_path / "cut.onnx"
    )  # run in ONNX Runtime, and compared with the cut graph
    assert len(checks) == 2
