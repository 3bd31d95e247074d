"""A small model with every kind of layer we compress, its inputs, and its outputs on this machine: what ARM must match.

python tools/arm/model.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

import hashcompile as hc
import hashcompile_runtime as hcrt


class Tiny(nn.Module):
    """ids (B, 36) -> scores (B, 10). Between our layers stand only operators that are exact on every CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(64, 16)
        self.conv = nn.Conv2d(16, 24, 3, padding=1)
        self.fc = nn.Linear(24 * 9, 10)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        image = self.embed(ids).transpose(1, 2).unflatten(2, (6, 6))
        return self.fc(nn.functional.max_pool2d(self.conv(image).relu(), 2).flatten(1))


def rounding_bound(compiled: hc.CompiledModel, ids: torch.Tensor) -> np.ndarray:
    """How far two fp32 evaluations of `compiled` may be apart, (B, 10).

    A sum of K products is off by at most (K + 3) eps times the same sum over magnitudes, in any order (Higham,
    Accuracy and Stability of Numerical Algorithms, 3.1; 3 for the scales and the bias). Errors add up through the
    layers, relu and maximum do not enlarge them; so the model with the magnitudes of its weights bounds them all.
    Twice, as both are off.
    """
    graph, magnitudes = compiled.graph_module, Tiny()
    for name in magnitudes.state_dict():
        value = graph.get_submodule(name)() if name.endswith("weight") else graph.get_parameter(name)
        magnitudes.get_parameter(name).data = value.detach().abs()
    terms = magnitudes.conv.weight[0].numel() + 3 + magnitudes.fc.in_features + 3
    return 2 * terms * torch.finfo(torch.float32).eps * magnitudes(ids).detach().numpy()


def main(folder: Path) -> None:
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    ids = torch.randint(64, (128, 36))
    for compute in ("int8", "float"):
        model = Tiny().eval()
        data = [(batch,) for batch in ids[:64].split(16)]
        compiled = hc.compile(
            model,
            (ids[:2],),
            method=hc.Codebook(bits=4),
            calibration=data,
            compute=compute,
            dynamic_batch=True,
        )
        path = folder / f"{compute}.onnx"
        compiled.export_onnx(path)
        session = hcrt.session(path, threads=1)
        feeds = ids[64:].numpy()
        wanted = session.run(None, {session.get_inputs()[0].name: feeds})[0]
        bound = rounding_bound(compiled, ids[64:]) if compute == "float" else np.zeros_like(wanted)
        np.savez(path.with_suffix(".npz"), ids=feeds, wanted=wanted, bound=bound)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
