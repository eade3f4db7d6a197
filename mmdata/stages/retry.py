"""Rejects, tried again after a fix: their shards are taken back, and with them what was made of those."""

from collections.abc import Collection
from dataclasses import dataclass

import pyarrow as pa

from mmdata.cluster import Resources
from mmdata.errors import ConfigError, Conflict, NotFound
from mmdata.stages.planning import Planned, planned
from mmdata.storage.dataset import SHARDS, Dataset, stage_folders
from mmdata.storage.plan import Plan, read_plan, revise_plan, whole_plan
from mmdata.storage.receipts import forget, read_receipts, read_rejects
from mmdata.types import Reason, Receipt

FOR_GOOD = (Reason.DUPLICATE, Reason.DUPLICATE_KEY)
HARMLESS = (Reason.FIRST_FRAME, Reason.RESCALED, Reason.SILENT, Reason.TOO_LONG)
"""Reasons that no fix of a source or a decoder takes away."""


@dataclass(frozen=True, slots=True)
class Retried:
    """What was taken back, by folder; `samples` are those that will be tried again."""

    samples: int
    shards: dict[str, list[str]]
    revised: int  # sources that have changed since they were planned


def retry(dataset: Dataset, stage: str | None, reasons: Collection[str]) -> Retried:
    """Take back every shard with a reject of these reasons (default: any that a fix may cure).

    The same commands make those shards again, and no others; ids stay. Of mended sources the plan takes the new
    version, in one step. What hangs on a shard goes before it, so that a crash in between is answered by the same
    command. Raises Conflict when the source has changed in more than its rejects.
    """
    wanted = _wanted(reasons)
    folders = _folders(dataset, stage)
    receipts = {folder: read_receipts(dataset.store, folder) for folder in stage_folders(dataset).values()}
    chosen = {folder: _with_rejects(receipts[folder], wanted) for folder in folders}
    tried = {
        folder: {r.id for r in read_rejects(dataset.store, folder) if r.reason in wanted}
        for folder, shards in chosen.items()
        if shards
    }
    revision = _revision(dataset, tried[SHARDS]) if chosen.get(SHARDS) else None
    back = _hanging_on(receipts, {(folder, shard) for folder, shards in chosen.items() for shard in shards})
    for folder, shard in (place for place in back if place[0] != SHARDS):
        forget(dataset.store, folder, receipts[folder][shard])
    revised = 0
    if revision is not None:
        found, new, revised = revision
        if new.plan.sha256 != found.sha256:
            revise_plan(dataset, found, new.plan, new.data)
    for folder, shard in (place for place in back if place[0] == SHARDS):
        forget(dataset.store, folder, receipts[folder][shard])
    shards: dict[str, list[str]] = {}
    for folder, shard in sorted(back):
        shards.setdefault(folder, []).append(shard)
    return Retried(sum(len(ids) for ids in tried.values()), shards, revised)


def _wanted(reasons: Collection[str]) -> set[Reason]:
    known = {reason.value: reason for reason in Reason}
    for name in reasons:
        if name not in known:
            raise ConfigError(f"no reason {name!r}; there are: {', '.join(known)}")
    return {known[name] for name in reasons} or set(Reason) - {*FOR_GOOD, *HARMLESS}


def _folders(dataset: Dataset, stage: str | None) -> list[str]:
    there = stage_folders(dataset)
    if stage is not None and stage not in there:
        raise NotFound(f"{dataset.url} has no stage {stage!r}; there are: {', '.join(there)}")
    return [there[stage]] if stage else list(there.values())


def _with_rejects(receipts: dict[str, Receipt], wanted: set[Reason]) -> list[str]:
    return [name for name, receipt in receipts.items() if {*receipt.rejected, *receipt.repaired} & wanted]


def _revision(dataset: Dataset, tried: set[int]) -> tuple[Plan, Planned, int]:
    """The plan there is, the plan of the source as it is now, and how many rows of it differ."""
    found = read_plan(dataset)
    if found is None:
        raise NotFound(f"{dataset.url} has no plan; run mmdata shard SOURCE {dataset.url}")
    new = planned(dataset, found, found.source, found.kind, found.options, Resources())
    old = whole_plan(dataset, found)
    names = ["id", "key"]
    if not old.select(names).equals(new.table.select(names)) or found.shards != new.plan.shards:
        raise _more_changed(dataset, f"it has {new.plan.samples} samples, not the same {found.samples}")
    differing = _differing(old, new.table)
    others = [row for row in differing if old["id"][row].as_py() not in tried]
    if others:
        raise _more_changed(dataset, f"{old['source'][others[0]]} has changed, too, which was no reject")
    return found, new, len(differing)


def _differing(old: pa.Table, new: pa.Table) -> list[int]:
    return [row for row, (a, b) in enumerate(zip(old.to_pylist(), new.to_pylist(), strict=True)) if a != b]


def _more_changed(dataset: Dataset, what: str) -> Conflict:
    return Conflict(
        f"the source of {dataset.url} has changed in more than its rejects: {what}; nothing was touched. "
        "Make another dataset, or all shards again: mmdata shard SOURCE DATASET --overwrite"
    )


def _hanging_on(receipts: dict[str, dict[str, Receipt]], chosen: set[tuple[str, str]]) -> list[tuple[str, str]]:
    """Folder and shard of the chosen and of all that was made of them; what was made of another goes before it."""
    order: list[tuple[str, str]] = []

    def visit(folder: str, shard: str) -> None:
        if (folder, shard) in order:
            return
        made = _names(folder, receipts[folder][shard])
        for other, there in receipts.items():
            if shard in there and other != folder and made & there[shard].inputs.keys():
                visit(other, shard)
        order.append((folder, shard))

    for folder, shard in sorted(chosen):
        visit(folder, shard)
    return order


def _names(folder: str, receipt: Receipt) -> set[str]:
    """How the receipts of later stages name the files of this one."""
    kind, _, name = folder.partition("/")
    if kind == "predictions":  # from which nothing is made
        return set()
    prefix = f"{name}/" if name else ""
    return {f"{prefix}{output}" for output in receipt.outputs}
