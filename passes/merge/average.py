"""The parameters of a group with representatives in the place of their members."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, fx

from hashcompile.core.layers import attribute
from hashcompile.passes.channels import Axis, Group, Role
from hashcompile.passes.channels.slices import places
from hashcompile.passes.merge.made import Made


def averaged(
    graph: fx.GraphModule, group: Group, ways: Sequence[Made], into: Tensor, average: Tensor
) -> dict[str, Tensor]:
    """New values of every parameter and buffer that makes the group's units, at full size.

    into: (U,), the unit that stands for each one; average: (U, U) float64, row r the shares of the members of r, zero
    where r stands for nothing. Where a batch norm follows, its mean and offset take what is averaged behind it, its
    scale and variance stay, and the weights are divided by them again.
    """
    found: dict[str, Tensor] = {}
    done: set[str] = set()
    heads = torch.nonzero(torch.bincount(into, minlength=group.count) > 1).flatten()
    for way in ways:
        spread = lifted(way.axis, average, heads, group.count)
        behind = spread
        if way.variance is not None:
            gain = way.gain(graph)
            new = torch.where(
                gain != 0, gain, spread @ gain.abs()
            )  # a silent unit may come to stand for others
            behind = torch.where(
                new[:, None] != 0, spread * gain / torch.where(new != 0, new, 1.0)[:, None], spread
            )
            found[str(way.mean)] = behind @ value(graph, way.mean)
            if way.beta is not None:
                found[way.beta] = spread @ value(graph, way.beta)
            if way.gamma is not None:
                found[way.gamma] = new * (value(graph, way.variance) + way.eps).sqrt()
        found[way.axis.parameter] = along(behind, value(graph, way.axis.parameter), way.axis.dim)
        if way.bias is not None:
            found[way.bias] = behind @ value(graph, way.bias)
        done |= set(way.names())
    for axis in group.of_role(Role.FOLLOWER):
        if axis.parameter not in done:
            spread = lifted(axis, average, heads, group.count)
            found[axis.parameter] = along(spread, value(graph, axis.parameter), axis.dim)
    return {name: tensor.to(attribute(graph, name).dtype) for name, tensor in found.items()}


def value(graph: fx.GraphModule, name: str | None) -> Tensor:
    return attribute(graph, str(name)).detach().double()


def along(matrix: Tensor, tensor: Tensor, dim: int) -> Tensor:
    """`matrix: (n, n)` times `tensor` along one dim."""
    return torch.tensordot(matrix, tensor, ([1], [dim])).movedim(0, dim)


def lifted(axis: Axis, average: Tensor, heads: Tensor, count: int) -> Tensor:
    """(n, n) float64: the average of units as one of their entries along an axis; entries of others stay."""
    where = places(axis, count)
    matrix = torch.eye(len(axis.unit), dtype=torch.float64)
    for head in heads.tolist():
        members = torch.nonzero(average[head]).flatten()
        for position in range(where.shape[1]):
            row = int(where[head, position])
            if row >= 0:
                matrix[row] = 0
                matrix[row, where[members, position]] = average[head, members]
    return matrix
