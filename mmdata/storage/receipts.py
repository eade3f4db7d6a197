"""Receipts prove that a shard of a stage is complete: every file of it is written before its receipt."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from importlib.metadata import version
from shlex import quote

import pyarrow as pa

from mmdata.crash import point
from mmdata.errors import Damage
from mmdata.storage.sealed import proof, seal, unseal
from mmdata.storage.store import Data, Store, sha256
from mmdata.storage.tables import as_json, from_parquet, to_parquet
from mmdata.types import Outcome, Output, Reason, Receipt, Reject

REPORT = "rejects.parquet"
RECEIPT = re.compile(r"\d{6,}\.json", re.ASCII)
SUFFIXES = re.compile(r"(\.[a-z]+)+", re.ASCII)  # of the files of a shard, behind its name
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
    right now: its bytes are kept when they are equal or `adopt(suffix, bytes)` says that they are as good.
    When another run has committed this shard meanwhile, its receipt is returned. What another run has put over our
    files before our receipt was there is written again.
    """
    outputs, made = {}, {}
    for suffix, data in files.items():
        name = f"{receipt.shard}.{suffix}"
        kept = _create_or_adopt(store, f"{folder}/{name}", data, lambda found, s=suffix: adopt(s, found))  # type: ignore[misc]
        outputs[name] = Output(len(kept), sha256(kept))
        made[f"{folder}/{name}"] = (store.info(f"{folder}/{name}"), kept)
    finished = replace(receipt, outputs=outputs)
    path = f"{folder}/{receipt.shard}.json"
    point("receipt.files_written")
    if store.create(path, seal(asdict(finished))):
        point("receipt.written")
        for place, (info, kept) in made.items():
            if store.info(place) != info:
                store.replace(place, kept)
        return finished
    return read_receipt(store, path)


def _create_or_adopt(store: Store, path: str, data: Data, adopt: Callable[[bytes], bool]) -> Data:
    if store.create(path, data):
        return data
    found = store.read(path)
    kept = found if found == data or adopt(found) else data
    store.replace(path, kept)  # also what is equal: gc takes an old file that no receipt names yet for left over
    return kept


def forget(store: Store, folder: str, receipt: Receipt) -> None:
    """Take a shard of a stage back, so that the same command makes it again.

    The receipt goes first: without it the other files are nothing, and a crash in between leaves no more than those.
    """
    store.delete(f"{folder}/receipts.json")
    for name in (f"{receipt.shard}.json", *sorted(receipt.outputs, key=_is_report, reverse=True)):
        store.delete(f"{folder}/{name}")


def _is_report(name: str) -> bool:
    return name.endswith(f".{REPORT}")


def _parse(data: bytes, where: str) -> Receipt:
    try:
        facts = unseal(data, where)
        facts["outputs"] = {name: Output(**output) for name, output in facts["outputs"].items()}
        receipt = Receipt(**facts)
        _check_names(receipt, where.rpartition("/")[2])
        return receipt
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damage(f"{where} is not a receipt: {error}") from error


def _check_names(receipt: Receipt, file: str) -> None:
    """ValueError when a receipt speaks of another shard's files: what it names is what `forget` deletes."""
    if not RECEIPT.fullmatch(file) or file != f"{receipt.shard}.json":
        raise ValueError(f"it says that it is of shard {receipt.shard!r}")
    for name in receipt.outputs:
        if not name.startswith(receipt.shard) or not SUFFIXES.fullmatch(name.removeprefix(receipt.shard)):
            raise ValueError(f"it names {name!r}, which is no file of its shard")


def read_receipt(store: Store, path: str) -> Receipt:
    """One receipt. Damage when it is not as it was written."""
    return _parse(store.read(path), store.where(path))


def read_receipts(store: Store, folder: str) -> dict[str, Receipt]:
    """Shard name to receipt, in shard order. Damage when one cannot be read."""
    paths = [info.path for info in store.list(folder) if RECEIPT.fullmatch(info.path.rpartition("/")[2])]
    with ThreadPoolExecutor(16) as pool:
        receipts = list(pool.map(lambda path: read_receipt(store, path), paths))
    return {receipt.shard: receipt for receipt in receipts}


def write_summary(store: Store, folder: str, changed: bool) -> None:
    """All receipts of a stage as one `receipts.parquet`, for readers of very many shards.

    `receipts.json`, written last, proves it. Nothing is done when no receipt has `changed` and that is there: an
    earlier run may have ended before it.
    """
    path, proof_path = f"{folder}/receipts.parquet", f"{folder}/receipts.json"
    if not changed and store.info(proof_path):
        return
    point("summary.write")
    rows = [
        {name: value if isinstance(value, str | int) else as_json(value) for name, value in asdict(r).items()}
        for r in read_receipts(store, folder).values()
    ]
    data = to_parquet(pa.Table.from_pylist(rows))
    store.delete(proof_path)
    store.replace(path, data)
    store.replace(proof_path, seal({"receipts": len(rows), "files": proof({"receipts.parquet": data})}))


def read_output(store: Store, folder: str, receipt: Receipt, suffix: str) -> bytes:
    """A file of a finished shard. Damage when it is not, byte for byte, the one that its receipt names."""
    name = f"{receipt.shard}.{suffix}"
    data = store.read(f"{folder}/{name}")
    if sha256(data) != receipt.outputs[name].sha256:
        raise Damage(
            f"{store.where(f'{folder}/{name}')} is not the file that its receipt names; to have it made again: "
            f"mmdata verify {quote(store.url)} --repair, then the commands that made it"
        )
    return data


def rejects_file(rejects: Iterable[Reject]) -> dict[str, Data]:
    """The rejects report of a shard as a file to commit; nothing when there is nothing to report."""
    rows = [asdict(reject) for reject in rejects]
    return {REPORT: to_parquet(pa.Table.from_pylist(rows, REJECTS))} if rows else {}


def read_rejects(store: Store, folder: str) -> list[Reject]:
    """Every row of the rejects reports of a stage, in shard order."""
    reports = [
        read_output(store, folder, receipt, REPORT)
        for receipt in read_receipts(store, folder).values()
        if f"{receipt.shard}.{REPORT}" in receipt.outputs
    ]
    rows = [row for report in reports for row in from_parquet(report, f"{store.where(folder)}/*.{REPORT}").to_pylist()]
    return [Reject(**{**row, "outcome": Outcome(row["outcome"]), "reason": Reason(row["reason"])}) for row in rows]


def tally(rejects: Iterable[Reject], outcome: Outcome) -> dict[str, int]:
    """Rows by reason. A sample that was repaired in several ways is counted once, under the first reason."""
    wanted = [reject for reject in rejects if reject.outcome == outcome]
    if outcome is Outcome.REPAIRED:
        wanted = list({reject.id: reject for reject in reversed(wanted)}.values())
    return dict(sorted(Counter(reject.reason.value for reject in wanted).items()))
