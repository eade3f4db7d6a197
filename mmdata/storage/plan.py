"""The plan: which source sample becomes which id in which shard. Written once, before any shard."""

from dataclasses import asdict, dataclass
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from mmdata.errors import Damage, NotFound, conflict
from mmdata.storage.dataset import SHARDS, Dataset
from mmdata.storage.store import sha256
from mmdata.storage.tables import from_parquet

TABLE, FACTS = f"{SHARDS}/plan.parquet", f"{SHARDS}/plan.json"


@dataclass(frozen=True, slots=True)
class Plan:
    """What `plan.json` says; row group n of `plan.parquet` is shard n."""

    source: str
    kind: str
    options: dict[str, Any]
    samples: int
    shards: int
    ignored: dict[str, int]  # files that are no part of any sample, by suffix
    sha256: str  # of plan.parquet

    @property
    def fingerprint(self) -> str:
        """Hash of everything that decides what the shards hold."""
        return sha256(orjson.dumps(asdict(self), option=orjson.OPT_SORT_KEYS))

    @property
    def names(self) -> list[str]:
        """The names of the shards, in order."""
        return [f"{number:06d}" for number in range(self.shards)]


def plan_table(table: pa.Table, starts: list[int]) -> bytes:
    """`plan.parquet`, with one row group a shard; `starts` are the first rows of the shards."""
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, table.schema, compression="ZSTD", write_page_checksum=True) as writer:
        for start, stop in zip(starts, [*starts[1:], table.num_rows], strict=True):
            writer.write_table(table.slice(start, stop - start), row_group_size=max(1, stop - start))
    return bytes(sink.getvalue())


def read_plan(dataset: Dataset) -> Plan | None:
    """The plan, or None when none was made."""
    try:
        data = dataset.store.read(FACTS)
    except NotFound:
        return None
    try:
        return Plan(**orjson.loads(data))
    except (ValueError, TypeError) as error:
        raise Damage(f"{dataset.store.where(FACTS)} is not a plan: {error}") from error


def write_plan(dataset: Dataset, plan: Plan, table: bytes) -> None:
    """Write the plan, or check that the one that is there is the same; Conflict, field by field, when not."""
    found = read_plan(dataset)
    if found is None:
        if not dataset.store.create(TABLE, table) and sha256(dataset.store.read(TABLE)) != plan.sha256:
            dataset.store.replace(TABLE, table)  # of a run that was killed before it wrote plan.json
        dataset.store.create(FACTS, orjson.dumps(asdict(plan), option=orjson.OPT_INDENT_2))
        found = read_plan(dataset)
    if found != plan:
        there = asdict(found) if found else {}
        remedy = "use another dataset, or --overwrite to make all shards again"
        changed = _changes(whole_plan(dataset), from_parquet(table, "the plan asked for"))
        raise conflict(f"the plan of {dataset.url}", _flat(there), _flat(asdict(plan)), "\n".join([*changed, remedy]))


def _changes(there: pa.Table, asked: pa.Table) -> list[str]:
    """What became of the sources, with the first of each kind."""
    old, new = ({row["source"]: row | {"id": None} for row in table.to_pylist()} for table in (there, asked))
    kinds = {
        "gone": [source for source in old if source not in new],
        "new": [source for source in new if source not in old],
        "changed": [source for source in new if source in old and old[source] != new[source]],
    }
    return [f"  {len(names)} of the sources {kind}, as {min(names)!r}" for kind, names in kinds.items() if names]


def _flat(facts: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in facts.items() if k != "options"} | dict(facts.get("options", {}))


def plan_rows(dataset: Dataset, plan: Plan, shard: str) -> pa.Table:
    """The rows of one shard. Damage when plan.parquet is not the file that plan.json names."""
    with dataset.store.open(TABLE) as file:
        try:
            parquet = pq.ParquetFile(file, page_checksum_verification=True, pre_buffer=False)
            return parquet.read_row_group(int(shard), use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise Damage(f"{dataset.store.where(TABLE)} is damaged: {error}") from error


def whole_plan(dataset: Dataset) -> pa.Table:
    """Every row of the plan."""
    return from_parquet(dataset.store.read(TABLE), TABLE)
