"""A network with every kind of layer that has CUDA kernels, and one that has none."""

import torch
from torch import Tensor, nn

import hashcompile as hc


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 8)
        self.hashed_table = nn.Embedding(50, 8)
        self.image = nn.Conv2d(8, 32, 3, padding=1, stride=2)
        self.few = nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.line = nn.Conv1d(32, 40, 3, padding="same")
        self.coded = nn.Linear(40, 24)
        self.hashed = nn.Linear(24, 40, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = (self.table(ids) + self.hashed_table(ids)).permute(0, 3, 1, 2)
        x = self.few(self.image(x).relu()).flatten(2)
        return self.hashed(self.coded(self.line(x).relu().mT).relu())


METHOD = {
    "*": hc.Codebook(bits=4),
    "hashed": hc.Hashed(tile=True, ratio=0.5),
    "hashed_table": hc.Hashed(ratio=0.5),
}


def compiled_network() -> tuple[hc.CompiledModel, Tensor]:
    """The network, and ids for it."""
    torch.manual_seed(0)
    ids = torch.randint(0, 50, (2, 4, 6))
    return hc.compile(Network().eval(), (ids,), method=METHOD, verify=False, progress=False), ids
