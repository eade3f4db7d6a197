"""The kinds of index there are: how each is made and trained, what it costs, and what of it can be tuned."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import log, sqrt
from typing import Any

import faiss
import numpy as np

from mmdata.errors import ConfigError
from mmdata.retrieval.metric import METRICS
from mmdata.retrieval.vector_index import Floats, VectorIndex

TRAIN_PER_LIST = 64  # FAISS asks for 39 at least
MOST_LISTS = 65_536
HEADER = 2048  # bytes at most that a file has beside its vectors
LINKS = 32  # of a node of the graph
EF_CONSTRUCTION = 80
PQ_ITERATIONS = 8  # of k-means; FAISS does 25
OPQ_ROUNDS = 3  # FAISS does 50; what is lost is made good by re-ranking
CENTROIDS = 256  # of a product code
PQ_PER_CENTROID = 40  # training rows
PQ_ROWS = CENTROIDS * PQ_PER_CENTROID
STORES = {"float16": "SQfp16", "float32": "Flat"}  # dtype of the features -> how ivf-pq keeps the vectors


@dataclass(frozen=True, slots=True)
class Terms:
    """What is asked of an index: recall of the 10 nearest, bytes in memory, and the seed of all that is random."""

    min_recall: float
    memory: int
    seed: int


@dataclass(frozen=True, slots=True)
class Kind:
    """`bytes_per_row(dim)` is what the index keeps in memory; vectors to re-rank by stay on the disk.

    `grow(m, n)` is how much longer a search takes in n rows than in m. `knob` is what is tuned against recall, and
    `rerank` lists how many times k rows are ranked again by their vectors, the cheapest first.
    """

    factory: Callable[[int, int], str]  # of rows and dim: what FAISS makes
    bytes_per_row: Callable[[int], float]
    grow: Callable[[int, int], float]
    knob: str = ""
    rerank: tuple[int, ...] = ()


def lists_for(rows: int) -> int:
    """Inverted lists of an index: a power of two near 4 sqrt(rows), fewer where rows are few."""
    return max(1, min(1 << round(log(4 * sqrt(max(rows, 1)), 2)), rows // 39, MOST_LISTS))


def code_bytes(dim: int) -> int:
    """Bytes of a product code: one for four dimensions, 64 at most."""
    return max(1, min(dim // 4, 64))


def _pq(rows: int, dim: int) -> str:
    size = code_bytes(dim)
    # "np": without polysemous training, which takes minutes and which no search here uses
    return f"OPQ{size}_{dim // size * size},IVF{lists_for(rows)},PQ{size}x8np"


KINDS: Mapping[str, Kind] = {
    "flat": Kind(
        factory=lambda rows, dim: "Flat",
        bytes_per_row=lambda dim: 4.0 * dim,
        grow=lambda m, n: n / m,
    ),
    "hnsw": Kind(
        factory=lambda rows, dim: f"HNSW{LINKS}",
        bytes_per_row=lambda dim: 4.0 * dim + 4 * (2 * LINKS + 1) + 20,
        grow=lambda m, n: log(n + 2) / log(m + 2),
        knob="efSearch",
    ),
    "ivf-flat": Kind(
        factory=lambda rows, dim: f"IVF{lists_for(rows)},Flat",
        bytes_per_row=lambda dim: 4.0 * dim + 8,
        grow=lambda m, n: sqrt(n / m),
        knob="nprobe",
    ),
    "ivf-pq": Kind(
        factory=_pq,
        bytes_per_row=lambda dim: code_bytes(dim) + 8.0,
        grow=lambda m, n: sqrt(n / m),
        knob="nprobe",
        rerank=(4, 16, 64),
    ),
}


def bytes_for(kind: str, rows: int, dim: int) -> int:
    """What an index would keep in memory: rows, centroids, rotation and code book."""
    lists = lists_for(rows) * (4 * dim + 8) if KINDS[kind].knob == "nprobe" else 0
    codes = 4 * dim * (dim + CENTROIDS) if KINDS[kind].rerank else 0
    return int(rows * KINDS[kind].bytes_per_row(dim)) + lists + codes + HEADER


def training_rows(kind: str, rows: int, dim: int, memory: int) -> int:
    """How many rows an index of `rows` learns from: none, or what fits in half of the memory."""
    if KINDS[kind].knob != "nprobe":
        return 0
    return max(1, min(rows, max(TRAIN_PER_LIST * lists_for(rows), PQ_ROWS), memory // (8 * dim)))


def trained(kind: str, metric: str, dtype: str, rows: int, sample: Floats, seed: int) -> VectorIndex:
    """An empty index for `rows` rows, trained on `sample`, `(n, dim)`: the same for the same sample and seed.

    Raises ConfigError when the sample is too small to learn from.
    """
    if KINDS[kind].rerank and len(sample) < CENTROIDS:
        raise ConfigError(f"{kind} learns {CENTROIDS} codes from as many vectors at least, not from {len(sample)}")
    dim = sample.shape[1]
    base = faiss.index_factory(dim, KINDS[kind].factory(rows, dim), METRICS[metric].faiss_metric)
    _seed(base, seed)
    if KINDS[kind].knob == "nprobe":
        base.train(sample)
    return VectorIndex(metric, base, empty_store(kind, metric, dtype, dim))


def empty_store(kind: str, metric: str, dtype: str, dim: int) -> Any:
    """Where a kind that only has codes keeps the vectors; None for the others."""
    if not KINDS[kind].rerank:
        return None
    store = faiss.index_factory(dim, STORES[dtype], METRICS[metric].faiss_metric)
    store.train(np.zeros((1, dim), np.float32))  # half floats have nothing to learn, and FAISS wants it said
    return faiss.deserialize_index(faiss.serialize_index(store))  # of the type that parts have when they are read


def _seed(base: Any, seed: int) -> None:
    if isinstance(base, faiss.IndexHNSW):
        base.hnsw.efConstruction = EF_CONSTRUCTION
    if isinstance(base, faiss.IndexPreTransform):
        rotation = faiss.downcast_VectorTransform(base.chain.at(0))
        rotation.niter, rotation.niter_pq_0, rotation.niter_pq = OPQ_ROUNDS, PQ_ITERATIONS // 2, 2
        rotation.max_train_points = PQ_ROWS
    if isinstance(base, faiss.IndexIVF | faiss.IndexPreTransform):
        ivf = faiss.downcast_index(faiss.extract_index_ivf(base))
        ivf.cp.seed = seed
        if isinstance(ivf, faiss.IndexIVFPQ):
            codes = ivf.pq.cp
            codes.seed, codes.niter, codes.max_points_per_centroid = seed, PQ_ITERATIONS, PQ_PER_CENTROID
