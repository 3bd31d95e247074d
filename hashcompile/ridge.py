"""How strongly the least squares of a layer are held to what it is already.

Least squares on few samples fit their noise, and a ridge keeps them from it. How much of one is needed, they tell
themselves (Hoerl, Kennard & Baldwin 1975, "Ridge regression: some simulations", Communications in Statistics 4(2)). For
weights W of K inputs x, found with n samples, that come closer to the outputs W0 x0 than a prior P does,

    ridge = K / n * unexplained / explained,

as a share of the mean input energy, which is what K s^2 / |W - P|^2 is on inputs that are alike in all directions.
Unexplained is |W0 x0 - W x|^2 times n / (n - K), for what was fitted of the noise; explained is by how much |W0 x0 - P
x|^2 is larger. What can be told exactly needs no ridge, however few the samples are; what hardly can stays as it is.

Where there are no more samples than inputs, nothing is left to tell noise by, and the share of noise in the gram
decides (`shrinkage.py`); it is also the most that is asked for. The least is the rounding of the moments, which are
summed in single precision before any mean is taken away.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from hashcompile.compensate import compensate
from hashcompile.core.parallel import one_thread
from hashcompile.shrinkage import noise_share

ROUNDING = 1e-6  # of moments, as a share of them
MOST = 1e6  # where the moments are noise: the weights stay what they were


@dataclass(frozen=True)
class LeastSquares:
    """The moments of X, the K0 inputs that a layer had, and of X~, the K that it has, on the same samples."""

    gram: Tensor  # (K, K) float64, X~'X~
    cross: Tensor  # (K0, K) float64, X'X~
    before: Tensor  # (K0, K0) float64, X'X
    samples: float  # independent ones
    least: float = ROUNDING  # ridge

    def about(self, count: int, mean: Tensor, mean_before: Tensor) -> LeastSquares:
        """Of inputs less their means, (K,) and (K0,), over `count` samples: for where a constant is solved for too."""
        gram = self.gram - count * mean[:, None] * mean
        energy, whole = float(gram.diagonal().sum()), float(self.gram.diagonal().sum())
        return replace(
            self,
            gram=gram,
            cross=self.cross - count * mean_before[:, None] * mean,
            before=self.before - count * mean_before[:, None] * mean_before,
            samples=self.samples - 1,
            least=min(ROUNDING * whole / energy, MOST) if energy > 0 else MOST,
        )

    def solve(self, rows: Tensor, prior: Tensor) -> Tensor:
        """The weights (N, K) with which X~ comes closest to what `rows` (N, K0) make of X, held to `prior` (N, K)."""
        with one_thread():
            return compensate(rows, self.gram, self.cross, self.ridge(rows.double(), prior.double()), prior)

    def ridge(self, rows: Tensor, prior: Tensor) -> float:
        """As a share of the gram's mean diagonal."""
        share = float(noise_share(self.gram[None], self.samples))
        most = max(self.least, min(share / (1 - share), MOST) if share < 1 else MOST)
        columns = len(self.gram)
        free = self.samples - columns
        if free <= 0:
            return most
        unexplained = self.lost(rows, compensate(rows, self.gram, self.cross, self.least, prior))
        unexplained *= self.samples / free
        explained = self.lost(rows, prior) - unexplained
        if not explained > 0:
            return most
        return max(self.least, min(most, columns / self.samples * unexplained / explained))

    def lost(self, rows: Tensor, weight: Tensor) -> float:
        """|X rows' - X~ weight'|^2."""
        whole = (rows @ self.before * rows).sum()
        return max(0.0, float(whole + ((weight @ self.gram - 2 * rows @ self.cross) * weight).sum()))
