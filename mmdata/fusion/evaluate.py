"""How good a retrieval is, and how good chance would be."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

KS = (1, 5, 10)
ROWS = 1024  # queries compared at once


def recall_at(
    queries: NDArray[np.floating],
    gallery: NDArray[np.floating],
    groups: Sequence[str],
    ks: Sequence[int] = KS,
) -> dict[str, float]:
    """R@k of pairs: row i of both, `(n, dim)` with unit rows, belongs together.

    A hit is any row of the gallery in the query's group (the same caption); nearest by dot product. A wrong row
    that is as near as the right one counts as nearer, so that vectors all alike find nothing.
    """
    before = wrong_before(queries, gallery, groups)
    return {f"R@{k}": float((before < k).mean()) for k in ks}


def wrong_before(
    queries: NDArray[np.floating], gallery: NDArray[np.floating], groups: Sequence[str] | NDArray[np.int64]
) -> NDArray[np.int64]:
    """How many wrong rows are in front of the first right one, for each query, `(n,)`."""
    _, group = np.unique(np.asarray(groups), return_inverse=True)
    before = np.zeros(len(group), np.int64)
    for start in range(0, len(group), ROWS):
        scores = queries[start : start + ROWS] @ gallery.T
        right = group[start : start + ROWS, None] == group
        best = np.where(right, scores, -np.inf).max(axis=1, keepdims=True)
        before[start : start + ROWS] = ((scores >= best) & ~right).sum(axis=1)
    return before


def chance_at(groups: Sequence[str], ks: Sequence[int] = KS) -> dict[str, float]:
    """The R@k that a random order would have: 1 - C(n - m, k) / C(n, k) for m right answers among n."""
    _, inverse, counts = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    right, n = counts[inverse], len(groups)
    chances = {}
    for k in ks:
        steps = np.arange(min(k, n))
        miss = np.clip((n - right[:, None] - steps) / (n - steps), 0, 1).prod(axis=1)
        chances[f"R@{k}"] = float((1 - miss).mean())
    return chances
