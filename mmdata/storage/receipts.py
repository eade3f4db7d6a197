"""Receipts prove that a shard of a stage is complete: every file of it is written before its receipt."""

import re
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from importlib.metadata import version

import orjson
import pyarrow as pa

from mmdata.errors import Damage
from mmdata.storage.store import Data, Store, sha256
from mmdata.storage.tables import as_json, from_parquet, to_parquet
from mmdata.types import Outcome, Output, Reason, Receipt, Reject

RECEIPT = re.compile(r"\d{6,}\.json")
REJECTS = pa.schema(
    [("id", pa.int64())] + [(name, pa.string()) for name in ("key", "source", "part", "outcome", "reason", "message")]
)


def versions(*packages: str) -> dict[str, str]:
    """Installed versions of mmdata and of `packages`."""
    return {name: version(name) for name in ("mmdata", *packages)}


def commit(
    store: Store,
    folder: str,
    receipt: Receipt,
    files: Mapping[str, Data],
    adopt: Callable[[str, bytes], bool] = lambda suffix, found: False,
) -> Receipt:
    """Write the files of one shard, then its receipt; return the receipt that counts.

    A file that is there without a receipt was left by a killed run, or is being written by another run
    right now: it is kept when it is equal or `adopt(suffix, bytes)` says that it is as good, else replaced.
    When another run has committed this shard meanwhile, its receipt is returned.
    """
    outputs = {}
    for suffix, data in files.items():
        name = f"{receipt.shard}.{suffix}"
        kept = _create_or_adopt(store, f"{folder}/{name}", data, lambda found, s=suffix: adopt(s, found))  # type: ignore[misc]
        outputs[name] = Output(len(kept), sha256(kept))
    finished = replace(receipt, outputs=outputs)
    path = f"{folder}/{receipt.shard}.json"
    if store.create(path, orjson.dumps(asdict(finished), option=orjson.OPT_INDENT_2)):
        return finished
    return _parse(store.read(path), store.where(path))


def _create_or_adopt(store: Store, path: str, data: Data, adopt: Callable[[bytes], bool]) -> Data:
    if store.create(path, data):
        return data
    found = store.read(path)
    if found == data or adopt(found):
        return found
    store.replace(path, data)
    return data


def _parse(data: bytes, where: str) -> Receipt:
    try:
        facts = orjson.loads(data)
        facts["outputs"] = {name: Output(**output) for name, output in facts["outputs"].items()}
        return Receipt(**facts)
    except (ValueError, KeyError, TypeError) as error:
        raise Damage(f"{where} is not a receipt: {error}") from error


def read_receipts(store: Store, folder: str) -> dict[str, Receipt]:
    """Shard name to receipt, in shard order. Damage when one cannot be read."""
    paths = [info.path for info in store.list(folder) if RECEIPT.fullmatch(info.path.rpartition("/")[2])]
    with ThreadPoolExecutor(16) as pool:
        receipts = list(pool.map(lambda path: _parse(store.read(path), store.where(path)), paths))
    return {receipt.shard: receipt for receipt in receipts}


def write_summary(store: Store, folder: str, changed: bool) -> None:
    """All receipts of a stage as one `receipts.parquet`, for readers of very many shards.

    Nothing is done when no receipt has `changed` and the file is there: an earlier run may have ended before it.
    """
    path = f"{folder}/receipts.parquet"
    if not changed and store.info(path):
        return
    rows = [
        {name: value if isinstance(value, str | int) else as_json(value) for name, value in asdict(r).items()}
        for r in read_receipts(store, folder).values()
    ]
    store.replace(path, to_parquet(pa.Table.from_pylist(rows)))


def rejects_file(rejects: Iterable[Reject]) -> dict[str, Data]:
    """The rejects report of a shard as a file to commit; nothing when there is nothing to report."""
    rows = [asdict(reject) for reject in rejects]
    return {"rejects.parquet": to_parquet(pa.Table.from_pylist(rows, REJECTS))} if rows else {}


def read_rejects(store: Store, folder: str) -> list[Reject]:
    """Every row of the rejects reports of a stage, in shard order."""
    paths = [info.path for info in store.list(folder) if info.path.endswith(".rejects.parquet")]
    rows = [row for path in paths for row in from_parquet(store.read(path), store.where(path)).to_pylist()]
    return [Reject(**{**row, "outcome": Outcome(row["outcome"]), "reason": Reason(row["reason"])}) for row in rows]


def tally(rejects: Iterable[Reject], outcome: Outcome) -> dict[str, int]:
    """Samples by reason, each sample counted once (under its first reason)."""
    first: dict[int, Reason] = {}
    for reject in rejects:
        if reject.outcome == outcome:
            first.setdefault(reject.id, reject.reason)
    counts: dict[str, int] = {}
    for reason in first.values():
        counts[reason.value] = counts.get(reason.value, 0) + 1
    return dict(sorted(counts.items()))
