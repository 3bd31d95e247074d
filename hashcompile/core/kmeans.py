"""Optimal weighted k-means of numbers on a line: where the entries of a codebook start.

    minimise over centroids c_1 <= ... <= c_k:   sum_i weights[i] * min_j (values[i] - c_j)^2

On a line every optimal cluster is a run of the sorted values, so dynamic programming over the ends of runs is
exact (Wang & Song 2011, Ckmeans.1d.dp). The best start of a cluster never moves left as its end moves right:
each of the k layers costs O(n log n) by divide and conquer (Gronlund et al. 2017, arXiv 1701.07204).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

EXACT = 4096  # distinct values up to which the dynamic programme sees every one of them
POLISH = 50  # Lloyd iterations on the full data after a reduction


def kmeans_1d(values: npt.ArrayLike, weights: npt.ArrayLike, k: int) -> Floats:
    """The k centroids (k,), sorted, of `values: (n,)` with `weights: (n,)` >= 0.

    Exact for up to `EXACT` distinct values of positive weight; beyond, the dynamic programme runs on bins
    and Lloyd's iteration finishes on the full data. With fewer distinct values than k each is its own centroid
    and the largest is repeated. If all weights are zero, each counts as one. An empty input gives zeros.
    """
    points, mass = _distinct(np.asarray(values, np.float64).ravel(), np.asarray(weights, np.float64).ravel())
    if points.size == 0:
        return np.zeros(k)
    if points.size <= k:
        return np.pad(points, (0, k - points.size), mode="edge")
    # Centred and scaled, the prefix sums neither cancel nor overflow.
    middle = _middle(points)
    span = max(points[-1] - middle, middle - points[0])
    points, mass = (points - middle) / span, mass / mass.max()
    if points.size <= EXACT:
        centroids = _optimal(points, mass, k)
    else:
        centroids = _lloyd(points, mass, _optimal(*_bins(points, mass), k))
    return np.sort(centroids) * span + middle


def _middle(points: Floats) -> float:
    return float(points[0] / 2 + points[-1] / 2)


def _distinct(values: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Sorted distinct values that carry weight, and the weight of each."""
    if not np.any(weights > 0):
        weights = np.ones_like(values)
    kept = weights > 0
    order = np.argsort(values[kept])
    values, weights = values[kept][order], weights[kept][order]
    first = np.flatnonzero(np.diff(values, prepend=np.nan) != 0)
    return values[first], np.add.reduceat(weights, first) if first.size else weights


def _bins(points: Floats, mass: Floats) -> tuple[Floats, Floats]:
    """At most `EXACT` bins, each the mean of neighbouring points.

    Edges mix equal mass, which resolves the bulk, with equal width, which resolves the tails.
    """
    half = EXACT // 2
    total = np.cumsum(mass)
    by_mass = np.searchsorted(total, total[-1] * np.arange(half) / half)
    by_width = np.searchsorted(points, np.linspace(points[0], points[-1], half, endpoint=False))
    first = np.unique(np.concatenate([[0], by_mass, by_width]))
    first = first[first < points.size]
    weight = np.add.reduceat(mass, first)
    return np.add.reduceat(mass * points, first) / weight, weight


class _Prefix:
    """Sums over any run [i, j) of sorted points in O(1): weight, weighted mean, within-run cost."""

    def __init__(self, points: Floats, mass: Floats) -> None:
        self.points = points
        self.w, self.wx, self.wxx = (
            np.concatenate([[0.0], np.cumsum(mass * points**power)]) for power in (0, 1, 2)
        )

    def cost(self, i: Ints, j: Ints) -> Floats:
        """sum w (x - mean)^2 over [i, j), elementwise."""
        w, wx = self.w[j] - self.w[i], self.wx[j] - self.wx[i]
        return np.maximum(self.wxx[j] - self.wxx[i] - wx * wx / np.where(w > 0, w, 1), 0)

    def means(self, edges: Ints) -> Floats:
        """Means of the runs [edges[m], edges[m + 1]), none of them empty."""
        i, j = edges[:-1], edges[1:]
        mean = (self.wx[j] - self.wx[i]) / (self.w[j] - self.w[i])
        return np.clip(mean, self.points[i], self.points[j - 1])


def _optimal(points: Floats, mass: Floats, k: int) -> Floats:
    """Exact k-means of sorted distinct points, n > k."""
    n = points.size
    if n <= k:
        return np.pad(points, (0, k - n), mode="edge")
    prefix = _Prefix(points, mass)
    ends = np.arange(1, n + 1)
    best = prefix.cost(np.zeros_like(ends), ends)  # best[e - 1]: the first e points in one cluster
    starts = []  # starts[m][e - 1]: start of the last of m + 2 clusters over the first e points
    for m in range(1, k):
        best, start = _layer(prefix, best, m)
        starts.append(start)
    edges = [n]
    for start in reversed(starts):
        edges.append(int(start[edges[-1] - 1]))
    return prefix.means(np.array([0, *edges[:0:-1], n]))


def _layer(prefix: _Prefix, before: Floats, m: int) -> tuple[Floats, Ints]:
    """One more cluster: best[e-1] = min over s of before[s-1] + cost(s, e), for m <= s < e <= n, and its s.

    The ends are solved middle first, all of one depth of the recursion at once: an end's start lies between
    those of its solved neighbours, so one depth scans about n candidates.
    """
    n = before.size
    best, start = np.full(n + 1, np.inf), np.zeros(n + 1, np.int64)
    low, high = np.array([m + 1]), np.array([n])  # ends still to be solved, as closed intervals
    left, right = np.array([m]), np.array([n - 1])  # where their starts can lie, closed
    while low.size:
        end = (low + high) // 2
        last = np.minimum(right, end - 1)
        count = last - left + 1
        offset = np.cumsum(count) - count
        which = np.repeat(np.arange(end.size), count)
        s = np.arange(which.size) - offset[which] + left[which]
        cost = before[s - 1] + prefix.cost(s, end[which])
        least = np.minimum.reduceat(cost, offset)
        hits = np.flatnonzero(cost == least[which])
        choice = s[hits[np.searchsorted(which[hits], np.arange(end.size))]]  # the leftmost among equals
        best[end], start[end] = least, choice
        low, high = np.stack([low, end + 1], 1).ravel(), np.stack([end - 1, high], 1).ravel()
        left, right = np.stack([left, choice], 1).ravel(), np.stack([choice, right], 1).ravel()
        open_ = low <= high
        low, high, left, right = low[open_], high[open_], left[open_], right[open_]
    return best[1:], start[1:]


def _lloyd(points: Floats, mass: Floats, centroids: Floats) -> Floats:
    """Lloyd's iteration on sorted points: prefix sums make a step O(k log n)."""
    prefix = _Prefix(points, mass)
    for _ in range(POLISH):
        cuts = np.searchsorted(points, (centroids[1:] + centroids[:-1]) / 2)
        edges = np.concatenate([[0], cuts, [points.size]])
        full = np.flatnonzero(np.diff(edges) > 0)  # an empty cluster keeps its centroid
        moved = centroids.copy()
        moved[full] = prefix.means(np.append(edges[full], points.size))
        if np.array_equal(moved, centroids):
            break
        centroids = moved
    return centroids
