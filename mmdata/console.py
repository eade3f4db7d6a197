"""What a person sees: progress on stderr, the summary of a run, tables of results on stdout."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table

from mmdata.progress import Progress, say
from mmdata.stages import Evaluation, Summary
from mmdata.types import Hit

__all__ = [
    "Progress",
    "emit",
    "emit_json",
    "say",
    "show_epoch",
    "show_evaluation",
    "show_facts",
    "show_hits",
    "show_summary",
    "show_table",
]


def emit(text: str) -> None:
    """A line of the result."""
    sys.stdout.write(text + "\n")


def emit_json(value: Any) -> None:
    """The result as one JSON document."""
    emit(orjson.dumps(value, option=orjson.OPT_INDENT_2, default=str).decode())


def show_summary(summary: Summary, as_json: bool) -> None:
    """The end of a run: rows, rejects by reason, rate, seconds by phase, where it is, what comes next."""
    if as_json:
        emit_json(asdict(summary))
        return
    rate = f", {summary.rows_now / summary.seconds:.0f} rows/s" if summary.rows_now else ""
    before = f" ({summary.shards_before} finished before)" if summary.shards_before else ""
    lines = [
        f"{summary.stage}: {summary.rows_out} of {summary.rows_in} rows in {summary.shards} shards{before}, "
        f"{summary.seconds:.1f} s{rate}",
        *_counted("rejected", summary.rejected),
        *_counted("repaired", summary.repaired),
        *([f"  without this modality: {summary.absent}"] if summary.absent else []),
        *(f"  {name}: {_plain(value)}" for name, value in summary.facts.items() if value),
        *([f"  seconds: {_plain(summary.phases)}"] if summary.phases else []),
        f"  in {summary.where}",
        *([f"  next: {summary.next}"] if summary.next else []),
    ]
    emit("\n".join(lines))


def _counted(what: str, counts: dict[str, int]) -> list[str]:
    return [f"  {what}: {sum(counts.values())} ({_plain(counts)})"] if counts else []


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(v)}" for name, v in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_plain(v) for v in value)
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def show_facts(facts: Mapping[str, Any]) -> None:
    """Facts as lines."""
    emit("\n".join(f"{name}: {_plain(value)}" for name, value in facts.items() if value is not None))


def show_epoch(epoch: Mapping[str, Any]) -> None:
    """A line of progress an epoch: the loss of each task and the main validation figures."""
    losses = ", ".join(f"{name} {value:.3f}" for name, value in epoch["loss"].items())
    main = {name: value for name, value in epoch["validation"].items() if " " not in name.replace("mean ", "")}
    found = ", ".join(f"{name} {value:.3f}" for name, value in main.items())
    say(f"  epoch {epoch['epoch']}: loss {losses}; validation {found}")


def show_evaluation(result: Evaluation) -> None:
    """A head beside its baselines, without some inputs, and where the report is."""
    for name, told in result.beside.items():
        rows = [
            [
                one["name"],
                f"{one['value']:.3f}",
                f"{one['low']:.3f} to {one['high']:.3f}",
                "" if one["lead"] is None else f"{one['lead']:+.3f}, {one['lead_low']:+.3f} to {one['lead_high']:+.3f}",
            ]
            for one in told["table"]
        ]
        columns = [f"{name} on {told['rows']} rows of {result.part}", told["figure"], "95%", "lead of this head, 95%"]
        show_table("", columns, rows)
        emit(f"  {name} {told['verdict']}")
    for name, count in result.strange.items():
        emit(f"  {name}: {count} rows of {result.part} are of a class that training has not; they are left out")
    for left, found in result.missing.items():
        emit(f"  without {left}: {_plain(found)}")
    for task in dict.fromkeys(name.partition("/")[0] for name in result.figures):
        own = {name.partition("/")[2]: value for name, value in result.figures.items() if name.startswith(f"{task}/")}
        emit(f"  {task}: {_plain(own)}")
    emit(f"  in {result.where}")


def show_hits(title: str, hits: Sequence[Hit]) -> None:
    """Hits as a table; nothing found is said so."""
    if not hits:
        emit(f"{title}: nothing found")
        return
    show_table(
        title,
        ["rank", "score", "key", "caption", "member"],
        [[h.rank, f"{h.score:.3f}", h.key, h.caption, f"{h.shard}/{h.member}{_window(h)}"] for h in hits],
    )


def _window(hit: Hit) -> str:
    return f" {hit.window[0]:g}-{hit.window[1]:g}" if hit.window else ""


def show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table as wide as the terminal, or as wide as it needs where there is none."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    Console(width=None if sys.stdout.isatty() else 140, highlight=False, markup=False).print(table)
