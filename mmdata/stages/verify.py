"""Is every byte of a dataset the one that was written? And what is there that nothing names?"""

import hashlib
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath

import pyarrow as pa

from mmdata.cluster import threads
from mmdata.errors import Damage, MMDataError, NotFound, StorageError
from mmdata.stages.repair import take_back
from mmdata.storage.accounts import Accounts, Finding, Proof, account
from mmdata.storage.dataset import SHARDS, Dataset
from mmdata.storage.receipts import read_receipt
from mmdata.storage.shards import read_sample_table
from mmdata.storage.store import FileInfo, sha256
from mmdata.storage.tables import PART_COLUMNS
from mmdata.storage.tar import scan
from mmdata.types import Modality

CHUNK = 4 << 20  # bytes hashed at once
TAR = re.compile(rf"{SHARDS}/\d{{6,}}\.tar")
PROBE = "clock.probe"


@dataclass(frozen=True, slots=True)
class Verified:
    """`files` and `bytes` were read and compared; `loose` are files that nothing names, which `mmdata gc` removes."""

    files: int
    bytes: int
    damaged: list[Finding]
    loose: list[str]
    repair: list[str]  # what was, or would have to be, made again


def verify(dataset: Dataset, repair: bool = False) -> Verified:
    """Read every file and compare it with the hash in its receipt or label, and those with their own seals.

    With `repair`, what is damaged is taken back as far as the same command then makes it again.
    """
    accounts = account(dataset)
    damaged = list(accounts.damaged)
    with ThreadPoolExecutor(threads()) as pool:
        found = pool.map(lambda item: _check(dataset, accounts, *item), accounts.proofs.items())
        damaged += [finding for finding in found if finding]
    return Verified(
        files=len({*accounts.documents, *accounts.proofs}),
        bytes=sum(proof.output.bytes for proof in accounts.proofs.values()),
        damaged=damaged,
        loose=sorted(info.path for info in accounts.loose),
        repair=[take_back(dataset, accounts, finding, repair) for finding in damaged],
    )


def _check(dataset: Dataset, accounts: Accounts, path: str, proof: Proof) -> Finding | None:
    info = accounts.infos.get(path)
    if info is None:
        return Finding(path, f"is gone; {proof.document} names it")
    try:
        if info.size == proof.output.bytes and _digest(dataset, path) == proof.output.sha256:
            return None
    except StorageError as error:
        return Finding(path, str(error), unread=not isinstance(error, NotFound))
    size = f"has {info.size} bytes, not {proof.output.bytes}" if info.size != proof.output.bytes else ""
    where = _damage_in_tar(dataset, path, proof) if TAR.fullmatch(path) else ""
    return Finding(path, "; ".join(filter(None, [size or "is not what was written", where])))


def _digest(dataset: Dataset, path: str) -> str:
    digest = hashlib.sha256()
    with dataset.store.open(path) as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _damage_in_tar(dataset: Dataset, path: str, proof: Proof) -> str:
    """Which samples of a shard are not whole any more, and where; else what is wrong with its headers."""
    try:
        samples = read_sample_table(dataset, read_receipt(dataset.store, proof.document))
    except MMDataError:
        return ""
    data = dataset.store.read(path)
    bad = [place for place in _parts(samples) if sha256(data[place[2] : place[2] + place[3]]) != place[4]]
    if bad:
        key, part, offset, *_ = min(bad, key=lambda place: place[2])
        rows = len({place[0] for place in bad})
        return f"{rows} of {len(samples)} samples are damaged, the first is {key!r}, its {part} at byte {offset}"
    try:
        with dataset.store.open(path) as file:
            for _ in scan(file, len(data), path):
                pass
    except Damage as error:
        return f"all samples are whole; {str(error).partition(': ')[2] or error}"
    return "all samples are whole; bytes between them have changed"


def _parts(samples: pa.Table) -> list[tuple[str, str, int, int, str]]:
    keys = samples["key"].to_pylist()
    found = []
    for part in [*Modality, "json"]:
        columns = [samples[f"{part}_{column}"].to_pylist() for column in PART_COLUMNS]
        found += [(k, part, o, n, h) for k, s, o, n, h in zip(keys, *columns, strict=True) if s is not None]
    return found


@dataclass(frozen=True, slots=True)
class Swept:
    """Files that nothing names and that were, or would be, removed."""

    removed: list[str]
    bytes: int
    kept: int  # that are younger, of a run that may still go on


def gc(dataset: Dataset, older_than: float, dry_run: bool) -> Swept:
    """Remove what killed runs left: files that no document names and that are older than so many seconds.

    The age is measured by the store's own clock. Checkpoint and logs of a training that is not finished stay. Damage
    when a document cannot be read: what it named would be taken for left over.
    """
    accounts = account(dataset)
    if accounts.damaged:
        first = accounts.damaged[0]
        raise Damage(f"{dataset.store.where(first.path)} {first.problem}; nothing was removed, see mmdata verify first")
    loose = [info for info in accounts.loose if not _goes_on(info.path, accounts)]
    now = _now(dataset) if older_than else float("inf")
    old = [info for info in loose if now - info.modified >= older_than]
    if not dry_run:
        old = [info for info in old if _remove(dataset, accounts, info)]
    _drop_empty_folders(dataset, [] if dry_run else old)
    return Swept([info.path for info in old], sum(info.size for info in old), len(loose) - len(old))


def _remove(dataset: Dataset, accounts: Accounts, info: FileInfo) -> bool:
    """Delete a file, unless a run has written it or committed its shard since it was listed."""
    folder, _, name = info.path.rpartition("/")
    there = dataset.store.info(info.path)
    if there is None or (there.version, there.modified) != (info.version, info.modified):
        return False
    receipt = f"{folder}/{name.partition('.')[0]}.json"
    if receipt not in accounts.infos and dataset.store.info(receipt):
        return False
    dataset.store.delete(info.path)
    return True


def _drop_empty_folders(dataset: Dataset, removed: Sequence[FileInfo]) -> None:
    """Of a local disk; an object store has none."""
    if dataset.store.local is None:
        return
    above = {parent for info in removed for parent in PurePosixPath(info.path).parents if str(parent) != "."}
    for folder in sorted(above, reverse=True):
        with suppress(OSError):  # not empty
            (dataset.store.local / folder).rmdir()


def _goes_on(path: str, accounts: Accounts) -> bool:
    """Whether a file is the checkpoint or a log of a head that is not finished."""
    kind, _, below = path.partition("/")
    name, *rest = below.split("/")
    belongs = kind == "heads" and rest and rest[0] in ("checkpoint.safetensors", "events")
    return bool(belongs) and f"heads/{name}/head.json" not in accounts.infos


def _now(dataset: Dataset) -> float:
    """The time by the clock that stamps the files."""
    dataset.store.replace(PROBE, b"")
    info = dataset.store.info(PROBE)
    dataset.store.delete(PROBE)
    return info.modified if info else 0.0
