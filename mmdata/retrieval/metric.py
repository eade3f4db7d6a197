"""How vectors become comparable: the metric, and which vectors may be compared at all."""

from collections.abc import Mapping
from dataclasses import dataclass

import faiss
import numpy as np
from numpy.typing import NDArray

from mmdata.types import Reason


@dataclass(frozen=True, slots=True)
class Space:
    """What FAISS compares by, whether rows are scaled to unit length first, and the sign that makes high near."""

    faiss_metric: int
    normalise: bool
    sign: float


METRICS: Mapping[str, Space] = {
    "cosine": Space(faiss.METRIC_INNER_PRODUCT, True, 1.0),
    "ip": Space(faiss.METRIC_INNER_PRODUCT, False, 1.0),
    "l2": Space(faiss.METRIC_L2, False, -1.0),
}


def ready(rows: NDArray[np.floating], metric: str) -> NDArray[np.float32]:
    """`(n, dim) float32`, contiguous, of unit length where the metric is cosine."""
    prepared = np.array(rows, dtype=np.float32, order="C")
    if METRICS[metric].normalise:
        faiss.normalize_L2(prepared)
    return prepared


def unusable(rows: NDArray[np.floating]) -> dict[Reason, NDArray[np.bool_]]:
    """Masks `(n,)` of the `(n, dim)` rows that no metric can place: not finite, or of no length."""
    finite = np.isfinite(rows).all(axis=1)
    return {Reason.NONFINITE_OUTPUT: ~finite, Reason.ZERO_NORM: finite & ~rows.any(axis=1)}
