"""The samples behind the hits: by number, their parts straight from the tar."""

import hashlib
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mmdata.errors import Damage, NotFound
from mmdata.serve.media import HEAD, SENT_AS, type_of
from mmdata.storage.dataset import SHARDS, Dataset
from mmdata.storage.plan import FACTS, read_plan
from mmdata.storage.receipts import read_receipt
from mmdata.storage.shards import metadata_names, older_index, read_part, read_sample_table
from mmdata.types import Modality, Receipt

TABLES = 32  # sample tables that are kept
CHUNK = 1 << 20  # bytes of a part that are in memory at once


def part_url(sample: int, modality: str, key: str) -> str:
    """The path of a part; it says the key too, so that a sample that was made anew is never taken for the old one."""
    return f"/samples/{sample}/{modality}?key={quote(key, safe='')}"


@dataclass(frozen=True, slots=True)
class Place:
    """Where the bytes of a part lie, and the content type that they have earned."""

    shard: str
    offset: int
    size: int
    sha256: str
    type: str


class Collection:
    """The shards of a dataset as one list of samples. Safe to use from several threads."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self._version = ""
        self._starts = [0]
        self.refresh()
        self._table = lru_cache(TABLES)(lambda receipt: read_sample_table(dataset, receipt.whole))

    def refresh(self) -> None:
        """Read the plan again where it is another one: shards are made while a service runs, and made anew."""
        facts = self.dataset.store.info(FACTS)
        version = facts.version if facts else ""
        if version != self._version:
            self._starts, self._version = _first_ids(self.dataset), version

    def __bool__(self) -> bool:
        return len(self._starts) > 1

    def about(self, sample: int, key: str | None = None) -> dict[str, Any]:
        """What the contract tells of a sample.

        NotFound when there is none of this number; Conflict when there is none of this number and `key`.
        """
        shard, row, names = self._row(sample, key)
        places = {modality: self._place(shard, row, modality) for modality in Modality if _has(row, modality)}
        return {
            "id": sample,
            "key": row["key"],
            "caption": row["caption"] or "",
            "metadata": {name: row[name] for name in names if row[name] is not None},
            "parts": {
                modality.value: {
                    "suffix": row[f"{modality}_suffix"],
                    "size": place.size,
                    "type": SENT_AS.get(place.type, place.type),
                    "url": part_url(sample, modality, row["key"]),
                }
                for modality, place in places.items()
            },
        }

    def place(self, sample: int, modality: Modality, key: str | None = None) -> Place:
        """Where a part lies. As `about`, and NotFound when the sample has none of this modality."""
        shard, row, _ = self._row(sample, key)
        if not _has(row, modality):
            raise NotFound(f"sample {sample} has no {modality}")
        return self._place(shard, row, modality)

    def whole(self, sample: int, modality: Modality, key: str | None = None) -> bytes:
        """A part, checked by its hash. NotFound and Damage as `place` and `chunks` raise them."""
        shard, row, _ = self._row(sample, key)
        return read_part(self.dataset, shard, row, modality).data

    def chunks(self, place: Place, start: int, stop: int) -> Iterator[bytes]:
        """Bytes of a part, piece by piece; where all of it is asked for, the last only if the hash is right."""
        digest = hashlib.sha256()
        for first in range(start, stop, CHUNK):
            piece = bytes(self._read(place, first, min(CHUNK, stop - first)))
            digest.update(piece)
            if first + len(piece) == place.size and start == 0 and digest.hexdigest() != place.sha256:
                raise Damage(f"shard {place.shard}: the bytes at {place.offset} are damaged; mmdata verify tells more")
            yield piece

    def _row(self, sample: int, key: str | None) -> tuple[str, dict[str, Any], list[str]]:
        """As `_row_of`, of a sample that is still the one of its key, where that is given."""
        try:
            shard, row, names = self._row_of(sample)
        except NotFound:
            if key is not None:
                raise older_index(sample, key) from None
            raise
        if key not in (None, row["key"]):
            raise older_index(sample, str(key))
        return shard, row, names

    def _row_of(self, sample: int) -> tuple[str, dict[str, Any], list[str]]:
        """The shard of a sample, its row of the sample table, and which of its columns are metadata."""
        starts = self._starts
        if not 0 <= sample < starts[-1]:
            raise NotFound(f"there is no sample {sample}; there are {starts[-1]}, from 0")
        shard = f"{bisect_right(starts, sample) - 1:06d}"
        receipt = read_receipt(self.dataset.store, f"{SHARDS}/{shard}.json")  # small, and newer when it was made again
        table: pa.Table = self._table(
            _Known(receipt.shard, receipt.outputs[f"{shard}.samples.parquet"].sha256, receipt)
        )
        rows = table.filter(pc.equal(table["id"], sample)).to_pylist()
        if not rows:
            raise NotFound(f"sample {sample} was left out; mmdata rejects says why")
        return shard, rows[0], metadata_names(table)

    def _place(self, shard: str, row: dict[str, Any], modality: Modality) -> Place:
        offset, size, digest = (row[f"{modality}_{column}"] for column in ("offset", "size", "sha256"))
        bare = Place(shard, offset, size, digest, "")
        head = bytes(self._read(bare, 0, min(HEAD, size)))
        return Place(shard, offset, size, digest, type_of(modality, head))

    def _read(self, place: Place, start: int, size: int) -> memoryview:
        return self.dataset.store.read_range(f"{SHARDS}/{place.shard}.tar", place.offset + start, size)


@dataclass(frozen=True)
class _Known:
    """A receipt as what a table is kept by."""

    shard: str
    sha256: str
    whole: Receipt = field(compare=False)


def _first_ids(dataset: Dataset) -> list[int]:
    """Of each shard, and the number of samples: a row group of the plan is a shard, a sample's id its row."""
    plan = read_plan(dataset)
    if plan is None:
        return [0]
    with dataset.store.open(f"{SHARDS}/{plan.table}") as file:
        footer = pq.read_metadata(file)
    return [0, *accumulate(footer.row_group(number).num_rows for number in range(footer.num_row_groups))]


def _has(row: dict[str, Any], modality: Modality) -> bool:
    return row[f"{modality}_suffix"] is not None
