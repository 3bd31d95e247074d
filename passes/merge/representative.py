"""One unit for many: what it computes, and with what coefficients the next layer reads it.

A bucket of units with weights w_u and worths e_u, the squares of what the next layers make of them, becomes w =
sum e_u w_u / sum e_u: with data an average over activations, in which a unit counts as much as it is used. The next
layer's columns are summed, sum c_u column_u:

- units that differ by a positive factor, behind activations that are positively homogeneous (f(c x) = c f(x) for
  c > 0), are c_u times their representative, exactly;
- units told by their activations are c_u times it as nearly as these are;
- else c_u is the least-squares one on calibration data, found behind the merge (`hashcompile/reconstruct.py`).
"""

from __future__ import annotations

import torch
from torch import Tensor


def averaging(bucket: Tensor, worth: Tensor) -> Tensor:
    """(R, U) float64: row r holds the shares of the units in bucket r, which sum to 1.

    bucket: (U,); worth: (U,). Where a whole bucket is worth nothing, its units count alike.
    """
    number = int(bucket.max()) + 1 if len(bucket) else 0
    member = (bucket == torch.arange(number)[:, None]).double()
    shares = member * worth.double().clamp_min(0)
    total = shares.sum(1, keepdim=True)
    return torch.where(
        total > 0, shares / torch.where(total > 0, total, 1.0), member / member.sum(1, keepdim=True)
    )


def factors(units: Tensor, average: Tensor, bucket: Tensor) -> Tensor:
    """(U,) float64 c_u, by which each row of `units: (U, K)` is a multiple of its representative, as nearly as it is:
    the projection <w_u, w> / <w, w>, 1 where the representative is zero, never negative.

    average: (R, U) of `averaging`; bucket: (U,).
    """
    rows = units.double()
    model = (average @ rows)[bucket]
    length = model.square().sum(1)
    found = (rows * model).sum(1) / torch.where(length > 0, length, 1.0)
    return torch.where(length > 0, found.clamp_min(0), 1.0)
