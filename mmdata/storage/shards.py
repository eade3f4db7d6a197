"""Shards: a tar of samples, and beside it a table that finds any part by offset and proves it by hash."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
import pyarrow as pa

from mmdata.errors import Conflict, Damage, NotFound
from mmdata.storage.dataset import SHARDS, Dataset
from mmdata.storage.receipts import read_output
from mmdata.storage.store import Data, sha256
from mmdata.storage.tables import PART_COLUMNS, from_parquet, metadata_columns, to_parquet
from mmdata.storage.tar import BLOCK, END, header, padding
from mmdata.types import Modality, Part, Receipt, Sample

CHUNK = 8 << 20  # bytes read at once
GAP = 256 << 10  # unwanted bytes worth reading over rather than asking twice
OFFSETS = frozenset(f"{part}_offset" for part in [*Modality, "json"])


def member_name(sample_id: int, suffix: str) -> str:
    """The name of a part in its tar: nine digits, so any key survives, then the suffix."""
    return f"{sample_id:09d}.{suffix}"


@dataclass(frozen=True, slots=True)
class Packed:
    """A sample as it lies in a shard: the blocks of its members, and its row, with offsets from the first block."""

    blocks: list[Data]
    size: int  # bytes of all blocks
    row: dict[str, Any]
    metadata: Mapping[str, Any]


def pack(sample: Sample, caption: str | None = None) -> Packed:
    """The members of a sample, each hashed. Its true key, source and metadata go into a `.json` member."""
    about = {"key": sample.key, "source": sample.source, "metadata": sample.metadata}
    about_json = orjson.dumps(about, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS, default=str)
    parts = {str(modality): part for modality, part in sample.parts.items()} | {"json": Part("json", about_json)}
    row: dict[str, Any] = {"id": sample.id, "key": sample.key, "source": sample.source, "caption": caption}
    blocks: list[Data] = []
    place = 0
    for name, part in sorted(parts.items(), key=lambda item: item[1].suffix):
        size = len(part.data)
        facts = (part.suffix, place + BLOCK, size, sha256(part.data))
        row |= {f"{name}_{column}": fact for column, fact in zip(PART_COLUMNS, facts, strict=True)}
        blocks += header(member_name(sample.id, part.suffix), size), part.data, padding(size)
        place += BLOCK + size + -size % BLOCK
    return Packed(blocks, place, row, sample.metadata)


class ShardWriter:
    """Collects packed samples, in the order of their ids, into the bytes of a tar and of its sample table."""

    def __init__(self) -> None:
        self.tar = bytearray()
        self.rows: list[dict[str, Any]] = []
        self.metadata: list[Mapping[str, Any]] = []

    def add(self, packed: Packed) -> None:
        """Append one sample."""
        start = len(self.tar)
        self.rows.append({name: start + fact if name in OFFSETS else fact for name, fact in packed.row.items()})
        self.metadata.append(packed.metadata)
        for block in packed.blocks:
            self.tar += block

    def files(self) -> dict[str, Data]:
        """The tar and its sample table, as files to commit. Nothing can be added any more: the tar is not copied."""
        self.tar += END
        table = pa.Table.from_pylist(self.rows, sample_schema())
        for name, column in metadata_columns(self.metadata).items():
            table = table.append_column(name, column)
        return {"tar": self.tar, "samples.parquet": to_parquet(table)}


def sample_schema() -> pa.Schema:
    """The columns of a sample table that every corpus has."""
    kinds = dict(zip(PART_COLUMNS, (pa.string(), pa.int64(), pa.int64(), pa.string()), strict=True))
    parts = [(f"{part}_{column}", kinds[column]) for part in [*Modality, "json"] for column in PART_COLUMNS]
    return pa.schema(
        [("id", pa.int64()), ("key", pa.string()), ("source", pa.string()), *parts, ("caption", pa.string())]
    )


def read_sample_table(dataset: Dataset, receipt: Receipt) -> pa.Table:
    """The sample table of a finished shard, one row a sample. Damage when it is not what was written."""
    data = read_output(dataset.store, SHARDS, receipt, "samples.parquet")
    return from_parquet(data, f"{receipt.shard}.samples.parquet")


def metadata_names(table: pa.Table) -> list[str]:
    """The metadata columns of a sample table: all but our own."""
    own = set(sample_schema().names)
    return [name for name in table.column_names if name not in own]


def older_index(sample: int, key: str) -> Conflict:
    """What is wrong when the sample that an index knows by this number and key is another one, or gone."""
    return Conflict(
        f"the index is older than the shards: {key!r} is not sample {sample} any more; "
        "run mmdata extract and mmdata index again with --overwrite"
    )


def read_parts(
    dataset: Dataset, shard: str, samples: pa.Table, wanted: Collection[Modality]
) -> Iterator[tuple[int, dict[Modality, memoryview]]]:
    """Row number in `samples` and the wanted parts of that sample, in order; each part is checked by hash.

    Reads the tar in chunks of about 8 MB and leaves out long stretches nobody wants.
    """
    columns = {m: _part_columns(samples, m) for m in wanted}
    spans: list[tuple[int, Modality, int, int, str]] = []
    start = end = 0
    for row in range(samples.num_rows):
        here = [(row, m, *facts[row][1:]) for m, facts in columns.items() if facts[row][1] is not None]
        low, high = min((s[2] for s in here), default=end), max((s[2] + s[3] for s in here), default=end)
        if spans and (high - start > CHUNK or low - end > GAP):
            yield from _read_spans(dataset, shard, spans, start, end)
            spans = []
        start, end = (start if spans else low), high
        spans += here
    if spans:
        yield from _read_spans(dataset, shard, spans, start, end)


def _part_columns(samples: pa.Table, modality: Modality) -> list[tuple[Any, ...]]:
    return list(zip(*(samples[f"{modality}_{column}"].to_pylist() for column in PART_COLUMNS), strict=True))


def _read_spans(
    dataset: Dataset, shard: str, spans: list[tuple[int, Modality, int, int, str]], start: int, end: int
) -> Iterator[tuple[int, dict[Modality, memoryview]]]:
    path = f"{SHARDS}/{shard}.tar"
    data = dataset.store.read_range(path, start, end - start)
    samples: dict[int, dict[Modality, memoryview]] = {}
    for row, modality, offset, size, digest in spans:
        part = data[offset - start : offset - start + size]
        if sha256(part) != digest:
            where = f"{dataset.store.where(path)}: the {modality} at byte {offset}"
            raise Damage(f"{where} is damaged; how much of it is, and what to do: mmdata verify {dataset.url}")
        samples.setdefault(row, {})[modality] = part
    yield from samples.items()


def read_part(dataset: Dataset, shard: str, row: Mapping[str, Any], modality: Modality) -> Part:
    """One part of one sample, straight from the tar; `row` is its row of the sample table.

    Raises NotFound when the sample has no such part, Damage when its bytes are not those that were written.
    """
    suffix, offset, size, digest = (row[f"{modality}_{column}"] for column in PART_COLUMNS)
    if suffix is None:
        raise NotFound(f"sample {row['key']!r} has no {modality}")
    data = bytes(dataset.store.read_range(f"{SHARDS}/{shard}.tar", offset, size))
    if sha256(data) != digest:
        raise Damage(f"shard {shard}: the {modality} of {row['key']!r} at byte {offset} is damaged")
    return Part(suffix, data)
