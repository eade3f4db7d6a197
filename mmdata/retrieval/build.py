"""Building by shard: trained once, each worker makes the parts of its shards, the driver merges them in order."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mmdata.cluster import Resources, Task, run
from mmdata.crash import point
from mmdata.errors import Damage
from mmdata.retrieval.kinds import empty_store
from mmdata.retrieval.metric import ready, unusable
from mmdata.retrieval.rows import BATCH, about, from_bytes, open_rows, to_bytes
from mmdata.retrieval.vector_index import VECTORS, Mask, VectorIndex
from mmdata.retrieval.vectors_file import Codes, codes, map_vectors, write_vectors
from mmdata.storage.dataset import Dataset
from mmdata.storage.features import Features, vectors
from mmdata.storage.store import translated

TRAINED = "trained.faiss"


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a worker has to know: where the trained index is, and which keys never get in."""

    features: Features
    folder: str  # of the generation
    kind: str
    metric: str
    deleted: frozenset[str]

    @property
    def dataset(self) -> Dataset:
        return self.features.dataset


@dataclass(frozen=True, slots=True)
class Part:
    """What became of a shard; its files are below `parts/` of the generation until they are merged."""

    shard: str
    sha256: str  # of the features file
    rows_in: int
    rows: int
    left_out: dict[str, int]


def save_trained(dataset: Dataset, folder: str, index: VectorIndex) -> None:
    """Keep an empty index for the workers, and for those shards that come later."""
    dataset.store.replace(f"{folder}/{TRAINED}", faiss.serialize_index(index.base).tobytes())


def load_trained(recipe: Recipe) -> VectorIndex:
    """What `save_trained` kept."""
    path = f"{recipe.folder}/{TRAINED}"
    base = _index_from(recipe.dataset.store.read(path), path)
    card = recipe.features.card
    return VectorIndex(recipe.metric, base, empty_store(recipe.kind, recipe.metric, card.dtype, card.dim))


def _index_from(data: bytes, where: str) -> faiss.Index:
    try:
        return faiss.deserialize_index(np.frombuffer(data, np.uint8))
    except RuntimeError as error:
        raise Damage(f"{where} is no FAISS index: {error}") from error


def make_parts(
    recipe: Recipe, shards: Sequence[str], resources: Resources, done: Callable[[int, int], None]
) -> list[Part]:
    """A part for each shard, in the order of the shards; `done` is told how many there are and their rows.

    Raises the error of the first shard that failed.
    """
    parts: dict[str, Part] = {}
    for ended in run(partial(_setup, recipe), _make_part, [Task(shard) for shard in shards], resources, name="index"):
        if ended.error is not None:
            raise ended.error
        assert ended.result is not None  # noqa: S101  it has ended without an error
        parts[ended.item.shard] = ended.result
        done(len(parts), sum(part.rows for part in parts.values()))
    return [parts[shard] for shard in shards]


@dataclass(frozen=True, slots=True)
class _State:
    recipe: Recipe
    empty: VectorIndex


def _setup(recipe: Recipe) -> _State:
    return _State(recipe, load_trained(recipe))


def _make_part(state: _State, task: Task) -> Part:
    recipe, shard = state.recipe, task.shard
    receipt = recipe.features.receipts[shard]
    table = recipe.features.read(receipt)
    raw = vectors(table)
    bad = unusable(raw)
    deleted = np.asarray(pc.is_in(table["key"], pa.array(sorted(recipe.deleted), pa.string())), bool)
    keep = ~np.logical_or.reduce([deleted, *bad.values()])
    part = state.empty.empty_part()
    part.add(ready(raw[keep], recipe.metric))
    files = {"faiss": faiss.serialize_index(part.base).tobytes()}
    if part.store is not None:
        files[VECTORS] = faiss.serialize_index(part.store).tobytes()
    files["arrow"] = to_bytes(about(table, shard).filter(pa.array(keep)))
    for suffix, data in files.items():
        recipe.dataset.store.replace(f"{recipe.folder}/parts/{shard}.{suffix}", data)
    point("index.part")
    left_out = {reason.value: int((mask & ~deleted).sum()) for reason, mask in bad.items()}
    return Part(
        shard=shard,
        sha256=receipt.outputs[f"{shard}.parquet"].sha256,
        rows_in=len(table),
        rows=int(keep.sum()),
        left_out={reason: count for reason, count in left_out.items() if count},
    )


def merge_parts(
    recipe: Recipe, index: VectorIndex, parts: Sequence[Part], folder: Path, kept: Mask | None = None
) -> list[pa.Table]:
    """Move the vectors of the parts into `index`, one part in memory at a time; the tables of their rows.

    Its `store` becomes a file in `folder`: of those rows that it had and are `kept`, and of the parts.
    """
    store = recipe.dataset.store
    index.make_room(sum(part.rows for part in parts))
    for part in _taken(recipe, parts, "faiss"):
        index.merge(VectorIndex(recipe.metric, part))
    if index.store is not None:
        card = recipe.features.card
        empty = empty_store(recipe.kind, recipe.metric, card.dtype, card.dim)
        with translated(store.where(recipe.folder)):
            write_vectors(folder / VECTORS, empty, chain(_kept(index.store, kept), _codes(recipe, parts)))
        index.store = map_vectors(folder / VECTORS)
    tables, local = [], store.local
    for part in parts:
        path = f"{recipe.folder}/parts/{part.shard}.arrow"
        tables.append(from_bytes(store.read(path)) if local is None else open_rows(local / path))
    return tables


def _taken(recipe: Recipe, parts: Sequence[Part], suffix: str) -> Iterator[Any]:
    """What FAISS has in a file of each part, which is gone afterwards."""
    for part in parts:
        path = f"{recipe.folder}/parts/{part.shard}.{suffix}"
        yield _index_from(recipe.dataset.store.read(path), path)
        recipe.dataset.store.delete(path)


def _codes(recipe: Recipe, parts: Sequence[Part]) -> Iterator[Codes]:
    for part in _taken(recipe, parts, VECTORS):  # which its codes are a view of: it has to stay
        yield codes(part)


def _kept(store: Any, kept: Mask | None) -> Iterator[Codes]:
    old = codes(store)
    for first in range(0, len(old), BATCH):
        piece = old[first : first + BATCH]
        yield piece if kept is None else piece[kept[first : first + BATCH]]


def left_out(parts: Sequence[Part]) -> dict[str, int]:
    """Rows that could not be indexed, by reason."""
    return dict(sum((Counter(part.left_out) for part in parts), Counter[str]()))
