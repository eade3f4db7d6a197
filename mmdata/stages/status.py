"""What a dataset holds and what it lacks, from its receipts, labels and rejects reports."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from mmdata.errors import NotFound
from mmdata.fusion.heads import read_head
from mmdata.retrieval.generation import index_names, read_facts
from mmdata.retrieval.living import changes, read_parts
from mmdata.stages.stale import stale_shards
from mmdata.storage.dataset import SHARDS, Dataset, features_folder, predictions_folder, stage_folders
from mmdata.storage.features import Features
from mmdata.storage.plan import read_plan
from mmdata.storage.receipts import read_receipts, read_rejects
from mmdata.types import Receipt


def status(dataset: Dataset) -> list[dict[str, Any]]:
    """One row for the shards and one for each feature set, head, set of predictions and index.

    `left` is in shards; `stale` are those made from shards that have changed since, or are gone, which counts as left.
    `rows/s` is what one thread does: by the seconds of work in the receipts, which add up.
    """
    plan = read_plan(dataset)
    shards = read_receipts(dataset.store, SHARDS)
    rows = [_row("shards", list(shards.values()), plan.shards if plan else 0)]
    for name in dataset.names("features"):
        receipts = read_receipts(dataset.store, features_folder(name))
        stale = len(stale_shards(dataset, receipts, shards))
        rows.append(_row(f"features {name}", list(receipts.values()), len(shards) + stale) | {"stale": stale})
    for name in dataset.names("predictions"):
        receipts = read_receipts(dataset.store, predictions_folder(name))
        rows.append(_row(f"predictions {name}", list(receipts.values()), len(shards)))
    return [
        *rows,
        *(_head(dataset, name) for name in _heads(dataset)),
        *(_index(dataset, n) for n in index_names(dataset)),
    ]


def _row(what: str, receipts: Sequence[Receipt], shards: int) -> dict[str, Any]:
    rows_out = sum(r.rows_out for r in receipts)
    seconds = sum(s for r in receipts for phase, s in r.seconds.items() if not phase.endswith("_wait"))
    return {
        "what": what,
        "shards": len(receipts),
        "left": max(0, shards - len(receipts)),
        "stale": 0,
        "rows in": sum(r.rows_in for r in receipts),
        "rows out": rows_out,
        "absent": sum(r.absent for r in receipts),
        "repaired": _total([r.repaired for r in receipts]),
        "rejected": _total([r.rejected for r in receipts]),
        "rows/s": round(rows_out / seconds, 1) if seconds else None,
    }


def _total(counts: Sequence[dict[str, int]]) -> dict[str, int]:
    return dict(sorted(sum((Counter(count) for count in counts), Counter[str]()).items()))


def _heads(dataset: Dataset) -> list[str]:
    return [name for name in dataset.names("heads") if dataset.store.info(f"heads/{name}/head.json")]


def _head(dataset: Dataset, name: str) -> dict[str, Any]:
    head = read_head(dataset, name)
    return _row(f"head {name} of {', '.join(card.name for card in head.inputs.values())}", (), 0)


def _index(dataset: Dataset, name: str) -> dict[str, Any]:
    """An index; shards of its features that it does not hold yet, or holds as they were, are left."""
    facts, _ = read_facts(dataset, name)
    parts = read_parts(dataset, facts)
    try:
        change = changes(Features(dataset, facts.features), parts, frozenset())
        left, stale = len(change.fresh), len(change.stale)
    except NotFound:
        left = stale = 0
    return _row(f"index {name}", (), 0) | {
        "shards": len(parts),
        "left": left,
        "stale": stale,
        "rows in": sum(part.rows_in for part in parts),
        "rows out": facts.rows,
        "rejected": facts.left_out,
        "rows/s": round(facts.rows / facts.seconds, 1) if facts.seconds else None,
    }


def rejects(dataset: Dataset, stage: str | None) -> list[dict[str, Any]]:
    """Every row of the rejects reports, of one stage or of all. NotFound for a stage that there is not."""
    stages = stage_folders(dataset)
    if stage is not None and stage not in stages:
        raise NotFound(f"{dataset.url} has no stage {stage!r}; there are: {', '.join(stages)}")
    return [
        {"stage": name, **asdict(reject)}
        for name in ([stage] if stage else stages)
        for reject in read_rejects(dataset.store, stages[name])
    ]
