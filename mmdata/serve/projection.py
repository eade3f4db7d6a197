"""The map: rows of an index in two dimensions."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdata.errors import NotFound
from mmdata.retrieval.metric import ready
from mmdata.retrieval.rows import take
from mmdata.retrieval.search import Index

MOST = 20_000  # rows of a map
SEED = 0


@dataclass(frozen=True, slots=True)
class Projection:
    """Rows of an index and where they lie, `(n, 2) float32`."""

    rows: NDArray[np.int64]
    spots: NDArray[np.float32]


def project(index: Index) -> Projection:
    """The first two principal components of the stored vectors; of a random sample where there are many."""
    from sklearn.decomposition import PCA

    rows = np.flatnonzero(np.asarray(index.rows["key"].is_valid()))
    if len(rows) > MOST:
        rows = np.sort(np.random.default_rng(SEED).choice(rows, MOST, replace=False))
    spots = np.zeros((len(rows), 2), np.float32)
    if len(rows) > 1:
        vectors = ready(index.vector_index.stored(rows), index.facts.metric)
        found = PCA(min(2, *vectors.shape), random_state=SEED).fit_transform(vectors)
        spots[:, : found.shape[1]] = found
    return Projection(rows, spots)


def columns(index: Index, projection: Projection, field: str | None) -> dict[str, Any]:
    """A map as the contract has it. NotFound for a field that there is not."""
    if field is not None and field not in index.rows.column_names:
        raise NotFound(f"{index.facts.name!r} has no field {field!r}; there are: {', '.join(index.rows.column_names)}")
    names = dict.fromkeys(["id", "key", "caption", *([field] if field else [])])
    about = take(index.rows.select(list(names)), projection.rows)
    return {
        "id": about["id"].to_pylist(),
        "key": about["key"].to_pylist(),
        "x": projection.spots[:, 0].tolist(),
        "y": projection.spots[:, 1].tolist(),
        "value": about[field].to_pylist() if field else [None] * len(about),
        "caption": [caption or "" for caption in about["caption"].to_pylist()],
    }
