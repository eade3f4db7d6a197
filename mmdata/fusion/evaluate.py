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

    A hit is any row of the gallery in the query's group (the same caption); nearest by dot product.
    """
    _, group = np.unique(np.asarray(groups), return_inverse=True)
    most = min(max(ks), len(group))
    found = np.zeros((len(group), most), bool)
    for start in range(0, len(group), ROWS):
        scores = queries[start : start + ROWS] @ gallery.T
        nearest = np.argsort(-scores, axis=1, kind="stable")[:, :most]
        found[start : start + ROWS] = group[nearest] == group[start : start + ROWS, None]
    return {f"R@{k}": float(found[:, :k].any(axis=1).mean()) for k in ks}


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
