"""Building an index: trained on a random sample of all shards, filled shard by shard."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmdata.errors import Damage, NotFound
from mmdata.storage.features import Features, vectors
from mmdata.storage.tables import concat

FLAT_UP_TO = 50_000  # below this many vectors exact search answers in a few milliseconds
TRAIN_PER_LIST = 64  # FAISS asks for 39 at least
PROBE_SHARE = 1 / 16  # of the lists


@dataclass(frozen=True, slots=True)
class Built:
    """An index, the rows that its ids number, its kind and its parameters."""

    index: Any
    rows: pa.Table
    kind: str
    parameters: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Space:
    """How vectors become comparable: what FAISS compares by, and whether rows are scaled to unit length first."""

    faiss_metric: int
    normalise: bool


METRICS = {
    "cosine": Space(faiss.METRIC_INNER_PRODUCT, True),
    "ip": Space(faiss.METRIC_INNER_PRODUCT, False),
    "l2": Space(faiss.METRIC_L2, False),
}


def ready(rows: NDArray[np.floating], metric: str) -> NDArray[np.float32]:
    """`(n, dim) float32`, contiguous, of unit length where the metric is cosine."""
    prepared = np.array(rows, dtype=np.float32, order="C")
    if METRICS[metric].normalise:
        faiss.normalize_L2(prepared)
    return prepared


def build(features: Features, *, kind: str, metric: str, seed: int) -> Built:
    """An index of every vector of a feature set; ids number the rows in shard order.

    Raises NotFound when there are no vectors.
    """
    total = sum(receipt.rows_out for receipt in features.receipts.values())
    if total == 0:
        raise NotFound(f"features {features.name!r} have no vectors to index")
    chosen = ("flat" if total <= FLAT_UP_TO else "ivf-flat") if kind == "auto" else kind
    index, parameters = KINDS[chosen](features, metric, total, seed)
    tables = []
    for shard, table in features.scan():
        rows = ready(vectors(table), metric)
        if not np.isfinite(rows).all():
            raise Damage(f"features {features.name!r}, shard {shard}: a vector is not finite")
        index.add(rows)
        about = table.drop_columns(["embedding"]).replace_schema_metadata(None)
        tables.append(about.append_column("shard", pa.array([shard] * len(about), pa.string())))
    return Built(index, concat(tables), chosen, parameters)


def _flat(features: Features, metric: str, total: int, seed: int) -> tuple[Any, dict[str, Any]]:
    return faiss.IndexFlat(features.card.dim, METRICS[metric].faiss_metric), {}


def _ivf_flat(features: Features, metric: str, total: int, seed: int) -> tuple[Any, dict[str, Any]]:
    lists = max(1, min(2 ** round(np.log2(4 * np.sqrt(total))), total // 39))
    dim = features.card.dim
    quantizer = faiss.IndexFlat(dim, METRICS[metric].faiss_metric)
    index = faiss.IndexIVFFlat(quantizer, dim, lists, METRICS[metric].faiss_metric)
    index.cp.seed = seed
    index.train(_sample(features, metric, min(total, TRAIN_PER_LIST * lists), total, seed))
    return index, {"nlist": lists, "nprobe": max(1, round(lists * PROBE_SHARE))}


KINDS: dict[str, Callable[[Features, str, int, int], tuple[Any, dict[str, Any]]]] = {
    "flat": _flat,
    "ivf-flat": _ivf_flat,
}


def _sample(features: Features, metric: str, wanted: int, total: int, seed: int) -> NDArray[np.float32]:
    """`(wanted, dim)` vectors drawn from all shards alike."""
    numbers = np.sort(np.random.default_rng(seed).choice(total, wanted, replace=False))
    drawn, first = [], 0
    for _, table in features.scan(["embedding"]):
        here = numbers[(numbers >= first) & (numbers < first + len(table))] - first
        drawn.append(vectors(table)[here])
        first += len(table)
    return ready(np.concatenate(drawn), metric)
