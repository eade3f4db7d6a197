"""The plan: which source sample becomes which id in which shard. Written once, before any shard."""

import re
from dataclasses import asdict, dataclass, replace
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from mmdata.crash import point
from mmdata.errors import Damage, NotFound, conflict
from mmdata.storage.dataset import SHARDS, Dataset
from mmdata.storage.sealed import proof, seal, unseal
from mmdata.storage.store import sha256
from mmdata.storage.tables import BROKEN, from_parquet, open_parquet

FACTS = f"{SHARDS}/plan.json"
TABLE = re.compile(r"plan(-[0-9a-f]{12})?\.parquet")


@dataclass(frozen=True, slots=True)
class Plan:
    """What `plan.json` says; row group n of its table is shard n."""

    source: str
    kind: str
    options: dict[str, Any]
    samples: int
    shards: int
    ignored: dict[str, int]  # files that are no part of any sample, by suffix
    sha256: str  # of its table
    table: str = "plan.parquet"  # another one when rejects were tried again
    first: str = ""  # fingerprint of the plan before any was tried again

    @property
    def fingerprint(self) -> str:
        """Hash of everything that decides what the shards hold; it stays when rejects are tried again."""
        return self.first or sha256(
            orjson.dumps({**asdict(self), "table": "", "first": ""}, option=orjson.OPT_SORT_KEYS)
        )

    def as_now(self, asked: "Plan") -> "Plan":
        """A plan that was made anew, under the name and the first fingerprint of this one."""
        return replace(asked, table=self.table, first=self.first)

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
        facts = unseal(data, dataset.store.where(FACTS))
        plan = Plan(**{name: value for name, value in facts.items() if name != "files"})
        if not TABLE.fullmatch(plan.table):
            raise ValueError(f"its table is {plan.table!r}")
        return plan
    except (TypeError, ValueError) as error:
        raise Damage(f"{dataset.store.where(FACTS)} is not a plan: {error}") from error


def write_plan(dataset: Dataset, plan: Plan, table: bytes) -> Plan:
    """Write the plan, or check that the one that is there is the same; Conflict, field by field, when not.

    A table that is not what the plan says is written again: of a run that was killed before plan.json, or damaged.
    """
    found = read_plan(dataset)
    if found is not None and found == found.as_now(plan):
        _keep_table(dataset, found, table)
    if found is None:
        _keep_table(dataset, plan, table)
        point("plan.table_written")
        dataset.store.create(FACTS, _sealed(plan, table))
        point("plan.written")
        found = read_plan(dataset) or plan
    if found != found.as_now(plan):
        remedy = "use another dataset, or --overwrite to make all shards again"
        changed = _changes_since(dataset, found, table)
        if changed.get("changed") and not changed["gone"] and not changed["new"]:
            remedy += f"; where only rejects were mended: mmdata rejects {dataset.url} --retry, and this command again"
        told = [f"  {len(names)} of the sources {kind}, as {min(names)!r}" for kind, names in changed.items() if names]
        raise conflict(
            f"the plan of {dataset.url}", _flat(found), _flat(found.as_now(plan)), "\n".join([*told, remedy])
        )
    return found


def _keep_table(dataset: Dataset, plan: Plan, table: bytes) -> None:
    path = f"{SHARDS}/{plan.table}"
    try:
        good = sha256(dataset.store.read(path)) == plan.sha256
    except NotFound:
        good = dataset.store.create(path, table)
    if not good:
        dataset.store.replace(path, table)


def _changes_since(dataset: Dataset, found: Plan, table: bytes) -> dict[str, list[str]]:
    try:
        return changes(whole_plan(dataset, found), from_parquet(table, "the plan asked for"))
    except (NotFound, Damage):
        return {}


def revise_plan(dataset: Dataset, found: Plan, plan: Plan, table: bytes) -> Plan:
    """Put `plan` in the place of `found`, in one step, for the sources of rejects that were mended since.

    What was made by `found` counts as made by it: the fingerprint stays. The caller has seen that ids, keys and
    shards are the same.
    """
    revised = replace(plan, table=f"plan-{plan.sha256[:12]}.parquet", first=found.fingerprint)
    dataset.store.replace(f"{SHARDS}/{revised.table}", table)
    dataset.store.replace(FACTS, _sealed(revised, table))
    if found.table != revised.table:
        dataset.store.delete(f"{SHARDS}/{found.table}")
    return revised


def _sealed(plan: Plan, table: bytes) -> bytes:
    return seal({**asdict(plan), "files": proof({plan.table: table})})


def changes(there: pa.Table, asked: pa.Table) -> dict[str, list[str]]:
    """What became of the sources: those that are gone, new and changed."""
    old, new = ({row["source"]: row | {"id": None} for row in table.to_pylist()} for table in (there, asked))
    return {
        "gone": [source for source in old if source not in new],
        "new": [source for source in new if source not in old],
        "changed": [source for source in new if source in old and old[source] != new[source]],
    }


def _flat(plan: Plan) -> dict[str, Any]:
    return {k: v for k, v in asdict(plan).items() if k != "options"} | plan.options


def plan_rows(dataset: Dataset, plan: Plan, shard: str) -> pa.Table:
    """The rows of one shard. Damage when a page of the table fails its checksum."""
    path = f"{SHARDS}/{plan.table}"
    with dataset.store.open(path) as file:
        try:
            return open_parquet(file).read_row_group(int(shard), use_threads=False)
        except BROKEN as error:
            raise Damage(f"{dataset.store.where(path)} is damaged: {error}") from error


def whole_plan(dataset: Dataset, plan: Plan) -> pa.Table:
    """Every row of the plan."""
    path = f"{SHARDS}/{plan.table}"
    return from_parquet(dataset.store.read(path), dataset.store.where(path))
