"""Building by shard: trained once, each worker makes the parts of its shards, the driver merges them in order."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mmdata.cluster import Resources, run
from mmdata.crash import point
from mmdata.errors import Damage
from mmdata.retrieval.kinds import empty_store
from mmdata.retrieval.metric import ready, unusable
from mmdata.retrieval.rows import about, from_bytes, open_rows, to_bytes
from mmdata.retrieval.vector_index import VectorIndex
from mmdata.storage.dataset import Dataset
from mmdata.storage.features import Features, vectors

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
    for ended in run(partial(_setup, recipe), _make_part, shards, resources):
        if ended.error is not None:
            raise ended.error
        assert ended.result is not None  # noqa: S101  it has ended without an error
        parts[ended.item] = ended.result
        done(len(parts), sum(part.rows for part in parts.values()))
    return [parts[shard] for shard in shards]


@dataclass(frozen=True, slots=True)
class _State:
    recipe: Recipe
    empty: VectorIndex


def _setup(recipe: Recipe) -> _State:
    return _State(recipe, load_trained(recipe))


def _make_part(state: _State, shard: str) -> Part:
    recipe = state.recipe
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
        files["vectors.faiss"] = faiss.serialize_index(part.store).tobytes()
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


def merge_parts(recipe: Recipe, index: VectorIndex, parts: Sequence[Part]) -> list[pa.Table]:
    """Move the vectors of the parts into `index`, one part in memory at a time; the tables of their rows."""
    store, tables = recipe.dataset.store, []
    index.make_room(sum(part.rows for part in parts))
    for part in parts:
        path = f"{recipe.folder}/parts/{part.shard}"
        files = [f"{path}.faiss"] + ([f"{path}.vectors.faiss"] if index.store is not None else [])
        index.merge(VectorIndex(recipe.metric, *(_index_from(store.read(file), file) for file in files)))
        for file in files:
            store.delete(file)
        local = store.local
        tables.append(from_bytes(store.read(f"{path}.arrow")) if local is None else open_rows(local / f"{path}.arrow"))
    return tables


def left_out(parts: Sequence[Part]) -> dict[str, int]:
    """Rows that could not be indexed, by reason."""
    return dict(sum((Counter(part.left_out) for part in parts), Counter[str]()))
