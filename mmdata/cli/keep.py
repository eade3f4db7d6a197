"""The verbs that keep a dataset sound: status, rejects, verify, gc."""

from typing import Annotated, Any

import typer

from mmdata.cli.build import DryRun
from mmdata.cli.look import AsJson, DatasetArg

COLUMNS = ("what", "shards", "left", "stale", "rows in", "rows out", "absent", "repaired", "rejected", "rows/s")


def status(dataset: DatasetArg, as_json: AsJson = False) -> None:
    """What a dataset holds: rows in, out, repaired and rejected by stage, the rate, and what is left to do.

    mmdata status data/
    """
    from mmdata import console
    from mmdata.stages.status import status as stages
    from mmdata.storage.dataset import Dataset

    opened = Dataset.open(dataset)
    rows = stages(opened)
    if as_json:
        console.emit_json(rows)
        return
    console.show_table(opened.url, COLUMNS, [[_cell(row[column]) for column in COLUMNS] for row in rows])


def rejects(
    dataset: DatasetArg,
    stage: Annotated[str | None, typer.Option(help="shards, a feature set, or predictions/HEAD; default: all")] = None,
    retry: Annotated[bool, typer.Option("--retry", help="take their shards back, to be made again")] = False,
    reason: Annotated[list[str] | None, typer.Option(help="with --retry: only of this reason; may be repeated")] = None,
    as_json: AsJson = False,
) -> None:
    """Every sample that was left out or changed, with the reason; or, after a fix, all of them once more.

    mmdata rejects data/
    mmdata rejects data/ --stage minilm --json
    mmdata rejects data/ --retry --reason decode_failed
    """
    from mmdata import console
    from mmdata.stages.status import rejects as rows
    from mmdata.storage.dataset import Dataset

    opened = Dataset.open(dataset)
    if retry:
        _retry(opened, stage, reason or [], as_json)
        return
    found = rows(opened, stage)
    if as_json:
        console.emit_json(found)
        return
    columns = ["stage", "outcome", "reason", "part", "key", "source", "message"]
    console.show_table(f"{len(found)} rows", columns, [[row[column] for column in columns] for row in found])


def _retry(dataset: Any, stage: str | None, reasons: list[str], as_json: bool) -> None:
    from dataclasses import asdict

    from mmdata import console
    from mmdata.stages.retry import retry

    done = retry(dataset, stage, reasons)
    if as_json:
        console.emit_json(asdict(done))
        return
    shards = [f"  {folder}: {len(names)} shards, as {names[0]}" for folder, names in done.shards.items()]
    mended = f", {done.revised} of changed sources" if done.revised else ""
    next_ = ["  next: the same commands that made them"] if shards else []
    console.emit("\n".join([f"{done.samples} samples will be tried again{mended}", *shards, *next_]))


def verify(
    dataset: DatasetArg,
    repair: Annotated[
        bool, typer.Option("--repair", help="take back what is damaged, so that it is made again")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Read every file of a dataset and compare it with what was written; exit code 7 when one differs.

    mmdata verify data/
    mmdata verify data/ --repair
    """
    from dataclasses import asdict

    from mmdata import console
    from mmdata.errors import Damage
    from mmdata.stages.verify import verify as check
    from mmdata.storage.dataset import Dataset

    try:
        opened = Dataset.open(dataset)
    except Damage:
        opened = Dataset(dataset)  # whose dataset.json is one of the findings
    found = check(opened, repair)
    if as_json:
        console.emit_json(asdict(found))
    else:
        console.emit(f"{opened.url}: {found.files} files, {found.bytes} bytes, {len(found.damaged)} damaged")
        for finding in found.damaged:
            console.emit(f"  {finding.path} {finding.problem}")
        if found.loose:
            console.emit(
                f"  {len(found.loose)} files that nothing names, as {found.loose[0]}; see: mmdata gc {dataset}"
            )
    if found.damaged:
        done = "to be made again" if repair else f"to make again, after mmdata verify {dataset} --repair"
        ways = "\n".join(f"  {way}" for way in dict.fromkeys(found.repair))
        raise Damage(f"{len(found.damaged)} of {found.files} files are damaged; {done}:\n{ways}")


def gc(
    dataset: DatasetArg,
    older_than: Annotated[float, typer.Option(help="hours; younger files may be of a run that goes on")] = 24.0,
    as_json: AsJson = False,
    dry_run: DryRun = False,
) -> None:
    """Remove what killed runs have left: files that no receipt and no label names.

    mmdata gc data/ --dry-run
    mmdata gc data/ --older-than 0      only when no run is working on it
    """
    from dataclasses import asdict

    from mmdata import console
    from mmdata.stages.verify import gc as sweep
    from mmdata.storage.dataset import Dataset

    swept = sweep(Dataset.open(dataset), older_than * 3600, dry_run)
    if as_json:
        console.emit_json(asdict(swept))
        return
    for path in swept.removed:
        console.emit(path)
    kept = f", {swept.kept} younger ones kept" if swept.kept else ""
    console.emit(f"{len(swept.removed)} files, {swept.bytes} bytes {'to remove' if dry_run else 'removed'}{kept}")


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{n} {reason}" for reason, n in value.items()) or "0"
    return "-" if value is None else str(value)
