"""A generation of an index: built anew, or the one before it with shards added and rows taken out."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmdata.cluster import Resources
from mmdata.crash import point
from mmdata.errors import NotFound
from mmdata.retrieval.build import TRAINED, Part, Recipe, load_trained, make_parts, merge_parts, save_trained
from mmdata.retrieval.generation import IndexFacts, LocalFiles, folder_of, read_beside
from mmdata.retrieval.kinds import Terms, trained, training_rows
from mmdata.retrieval.rows import blank
from mmdata.retrieval.sample import draw
from mmdata.retrieval.vector_index import VectorIndex
from mmdata.storage.dataset import Dataset
from mmdata.storage.features import Features
from mmdata.storage.tables import as_json, from_parquet, to_parquet

SHARDS, DELETED = "shards.parquet", "deleted.parquet"
Told = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Made:
    """A generation in memory: its vectors, the tables of its rows, and the shards that they are from."""

    index: VectorIndex
    tables: list[pa.Table]
    parts: list[Part]
    trained_for: int
    changed: int


def build(recipe: Recipe, rows: int, terms: Terms, resources: Resources, told: Told, place: Path) -> Made:
    """A generation of every shard of the features, of which about `rows` rows are expected; its files go to `place`."""
    save_trained(recipe.dataset, recipe.folder, _learned(recipe, rows, terms))
    point("index.trained")
    index = load_trained(recipe)
    parts = make_parts(recipe, list(recipe.features.receipts), resources, told)
    tables = merge_parts(recipe, index, parts, place)
    point("index.merged")
    return Made(index, tables, parts, sum(part.rows for part in parts), 0)


def _learned(recipe: Recipe, rows: int, terms: Terms) -> VectorIndex:
    """In a function of its own, so that the sample is gone when the parts are made."""
    card = recipe.features.card
    wanted = training_rows(recipe.kind, rows, card.dim, terms.memory)
    sample = draw(recipe.features, wanted, recipe.metric, terms.seed)
    return trained(recipe.kind, recipe.metric, card.dtype, rows, sample, terms.seed)


@dataclass(frozen=True, slots=True)
class Change:
    """What the features, and the keys that are to go, ask of an index: shards to take in, rows to take out."""

    fresh: list[str]
    stale: list[str]
    delete: frozenset[str]  # keys that were not deleted before

    def __bool__(self) -> bool:
        return bool(self.fresh or self.stale or self.delete)


def changes(features: Features, parts: Sequence[Part], delete: frozenset[str]) -> Change:
    """A shard whose features file is another one is stale and fresh; one whose features are gone is stale."""
    there = {part.shard: part.sha256 for part in parts}
    now = {shard: receipt.outputs[f"{shard}.parquet"].sha256 for shard, receipt in features.receipts.items()}
    fresh = [shard for shard, digest in now.items() if there.get(shard) != digest]
    stale = [shard for shard, digest in there.items() if now.get(shard) != digest]
    return Change(fresh, stale, delete)


def extend(recipe: Recipe, facts: IndexFacts, change: Change, resources: Resources, told: Told, place: Path) -> Made:
    """The generation of `facts` with a change, as `build`. NotFound for a key to delete that it does not have."""
    before = folder_of(facts.name, int(facts.generation))
    parts = read_parts(recipe.dataset, facts)
    index, rows = LocalFiles(recipe.dataset, facts, whole=True).open(facts.metric, mapped=False)
    _known(rows, change.delete, facts.name)
    recipe.dataset.store.replace(f"{recipe.folder}/{TRAINED}", recipe.dataset.store.read(f"{before}/{TRAINED}"))
    dead = _among(rows["shard"], change.stale) | _among(rows["key"], change.delete)
    kept = index.remove(dead)
    left = rows.filter(pa.array(kept)) if not kept.all() else blank(rows, dead) if dead.any() else rows
    fresh = make_parts(recipe, change.fresh, resources, told)
    tables = [left, *merge_parts(recipe, index, fresh, place, kept)]
    now = [part for part in parts if part.shard not in change.stale] + fresh
    changed = facts.changed + int(dead.sum()) + sum(part.rows for part in fresh)
    return Made(index, tables, now, facts.trained_for, changed)


def _among(column: pa.ChunkedArray, values: Collection[str]) -> NDArray[np.bool_]:
    return np.asarray(pc.is_in(column, pa.array(sorted(values), pa.string())), bool)


def _known(rows: pa.Table, keys: frozenset[str], name: str) -> None:
    unknown = sorted(keys - set(rows["key"].filter(pa.array(_among(rows["key"], keys))).to_pylist()))
    if unknown:
        raise NotFound(f"the index {name!r} has no sample {unknown[0]!r} to delete ({len(unknown)} such keys)")


def write_parts(recipe: Recipe, made: Made) -> None:
    """Keep what the next generation has to know: the shards, and the keys that never come back."""
    rows = [{**asdict(part), "left_out": as_json(part.left_out)} for part in made.parts]
    tables = {
        SHARDS: pa.Table.from_pylist(rows),
        DELETED: pa.table({"key": pa.array(sorted(recipe.deleted), pa.string())}),
    }
    for file, table in tables.items():
        recipe.dataset.store.replace(f"{recipe.folder}/{file}", to_parquet(table))


def read_parts(dataset: Dataset, facts: IndexFacts) -> list[Part]:
    """The shards that an index is made of."""
    rows = from_parquet(read_beside(dataset, facts, SHARDS), SHARDS).to_pylist()
    return [Part(**{**row, "left_out": orjson.loads(row["left_out"])}) for row in rows]


def read_deleted(dataset: Dataset, facts: IndexFacts) -> frozenset[str]:
    """The keys that were taken out of an index for good."""
    return frozenset(from_parquet(read_beside(dataset, facts, DELETED), DELETED)["key"].to_pylist())
