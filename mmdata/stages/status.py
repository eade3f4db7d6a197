"""What a dataset holds and what it lacks, from its receipts and rejects reports."""

from dataclasses import asdict
from typing import Any

from mmdata.errors import NotFound
from mmdata.storage.dataset import SHARDS, Dataset, features_folder
from mmdata.storage.plan import read_plan
from mmdata.storage.receipts import read_receipts, read_rejects
from mmdata.types import Receipt


def status(dataset: Dataset) -> list[dict[str, Any]]:
    """One row for the shards and one for each feature set."""
    plan = read_plan(dataset)
    shards = read_receipts(dataset.store, SHARDS)
    rows = [_row("shards", list(shards.values()), plan.shards if plan else 0)]
    for name in dataset.names("features"):
        receipts = read_receipts(dataset.store, features_folder(name))
        rows.append(_row(f"features {name}", list(receipts.values()), len(shards)))
    return rows


def _row(what: str, receipts: list[Receipt], shards: int) -> dict[str, Any]:
    return {
        "what": what,
        "shards": len(receipts),
        "left": shards - len(receipts),
        "rows in": sum(r.rows_in for r in receipts),
        "rows out": sum(r.rows_out for r in receipts),
        "absent": sum(r.absent for r in receipts),
        "repaired": _total([r.repaired for r in receipts]),
        "rejected": _total([r.rejected for r in receipts]),
    }


def _total(counts: list[dict[str, int]]) -> dict[str, int]:
    reasons = sorted({reason for count in counts for reason in count})
    return {reason: sum(count.get(reason, 0) for count in counts) for reason in reasons}


def rejects(dataset: Dataset, stage: str | None) -> list[dict[str, Any]]:
    """Every row of the rejects reports, of one stage or of all. NotFound for a stage that there is not."""
    stages = ["shards", *dataset.names("features")]
    if stage is not None and stage not in stages:
        raise NotFound(f"{dataset.url} has no stage {stage!r}; there are: {', '.join(stages)}")
    return [
        {"stage": name, **asdict(reject)}
        for name in ([stage] if stage else stages)
        for reject in read_rejects(dataset.store, SHARDS if name == "shards" else features_folder(name))
    ]
