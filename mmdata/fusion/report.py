"""`report.md` and its pictures."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mmdata.fusion.metrics import calibration_bins, confusion

MOST_CLASSES = 60  # more names than this do not fit an axis
MAIN = ("/accuracy", "/r2", "/map", "/mean R@10", "/auroc")  # figures that are drawn
ROOM = (-0.03, 1.03)
MOST_COUNTED = 12  # more numbers than these squared do not fit a matrix


HOW = """Intervals are 95% bootstraps over rows. A lead is that of the head over a baseline on the same rows; it may be
luck where its interval holds zero. Baselines learn from the same training rows and choose on the same validation
rows."""


def report(title: str, facts: Mapping[str, Any], pictures: Sequence[str]) -> str:
    """Markdown: what the head is, each task beside its baselines with its classes and pictures, missing inputs, curves.

    A picture belongs to the task that its name begins with, as in TASK.confusion.png.
    """
    lines = [f"# {title}: {facts['rows']} rows", "", facts["about"], "", *([HOW, ""] if facts["beside"] else [])]
    own = {picture: picture.partition(".")[0] for picture in pictures}
    for name in sorted({*facts["beside"], *facts["classes"]}):
        lines += [f"## {name}", ""]
        if told := facts["beside"].get(name):
            lines += [f"On {told['rows']} rows: {_said(told['verdict'])}.", "", *_standings(told), ""]
            lines += [*_table("figure", _turned(told["figures"])), ""]
        if count := facts["strange"].get(name):
            lines += [f"{count} rows are of a class that training has not; they are left out.", ""]
        mine = [f"![{picture}]({picture})" for picture, task in own.items() if task == name]
        lines += [*mine, ""] if mine else []
        lines += _classes(facts["classes"].get(name, []))
    if not facts["beside"]:
        lines += ["## Figures", "", "| figure | value |", "|---|---|"]
        lines += [*(f"| {name} | {value:.4f} |" for name, value in facts["figures"].items()), ""]
    if facts["missing"]:
        lines += ["## Without some inputs", "", *_table("without", facts["missing"]), ""]
    rest = [f"![{picture}]({picture})" for picture, task in own.items() if task == "curves"]
    lines += ["## Training", "", *rest] if rest else []
    return "\n".join(lines) + "\n"


def _classes(table: Sequence[Mapping[str, Any]]) -> list[str]:
    if not table:
        return []
    rows = ["| class | rows | precision | recall | F1 |", "|---|---|---|---|---|"]
    if len(table) > MOST_CLASSES:
        rows = [f"The {MOST_CLASSES} of {len(table)} classes with the least F1.", "", *rows]
    rows += [
        f"| {one['class']} | {one['rows']} | {one['precision']:.3f} | {one['recall']:.3f} | {one['f1']:.3f} |"
        for one in table[:MOST_CLASSES]
    ]
    return [*rows, ""]


def _standings(told: Mapping[str, Any]) -> list[str]:
    rows = [f"| | {told['figure']} | 95% interval | lead of this head, 95% interval |", "|---|---|---|---|"]
    for one in told["table"]:
        lead = "" if one["lead"] is None else f"{one['lead']:+.3f}, {one['lead_low']:+.3f} to {one['lead_high']:+.3f}"
        rows.append(f"| {one['name']} | {one['value']:.3f} | {one['low']:.3f} to {one['high']:.3f} | {lead} |")
    return rows


def _said(verdict: str) -> str:
    return verdict if verdict.startswith("there is no") else f"this head {verdict}"


def _turned(found: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """A row a figure, a column a predictor."""
    names = next(iter(found.values()))
    return {name: {who: values[name] for who, values in found.items() if name in values} for name in names}


def _table(first: str, found: Mapping[str, Mapping[str, float]]) -> list[str]:
    """A row a name, a column a figure; empty where one has it not."""
    names = list(next(iter(found.values())))
    rows = [f"| {first} | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for row, values in found.items():
        cells = [f"{values[name]:.3f}" if name in values else "" for name in names]
        rows.append(f"| {row} | " + " | ".join(cells) + " |")
    return rows


def confusion_picture(probability: NDArray[np.floating], target: NDArray[np.int64], classes: Sequence[str]) -> bytes:
    """A PNG of the confusion matrix, each row a true class, scaled to one."""
    counts = confusion(probability, target).astype(float)
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.add_subplot()
    shown = axes.imshow(counts / np.maximum(counts.sum(1, keepdims=True), 1), vmin=0, vmax=1, cmap="Blues")
    figure.colorbar(shown, label="share of the true class")
    axes.set(xlabel="said", ylabel="true", title=f"{int(counts.sum())} rows")
    if len(classes) <= MOST_COUNTED:
        for (row, column), count in np.ndenumerate(counts):
            dark = shown.norm(count / max(counts[row].sum(), 1)) > 0.5
            axes.text(column, row, f"{count:.0f}", ha="center", va="center", color="white" if dark else "black")
    if len(classes) <= MOST_CLASSES:
        axes.set_xticks(range(len(classes)), classes, rotation=90, fontsize=7)
        axes.set_yticks(range(len(classes)), classes, fontsize=7)
    return _png(figure)


def calibration_picture(probability: NDArray[np.floating], target: NDArray[np.int64]) -> bytes:
    """A PNG of accuracy against confidence; on the diagonal a head knows what it knows."""
    confidence, accuracy, share = calibration_bins(probability, target).T
    figure = Figure(figsize=(4, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1)
    axes.scatter(confidence, accuracy, s=20 + 400 * share)
    axes.set(xlabel="confidence", ylabel="accuracy", xlim=ROOM, ylim=ROOM, title="size: share of the rows")
    return _png(figure)


def values_picture(value: NDArray[np.floating], target: NDArray[np.floating]) -> bytes:
    """A PNG of what was said against what is true, a dot a row; on the diagonal a head is right."""
    figure = Figure(figsize=(4, 4), layout="constrained")
    axes = figure.add_subplot()
    ends = [float(min(value.min(), target.min())), float(max(value.max(), target.max()))]
    axes.plot(ends, ends, color="grey", linewidth=1)
    axes.scatter(target, value, s=8, alpha=0.5)
    axes.set(xlabel="true", ylabel="said", title=f"{len(value)} rows")
    return _png(figure)


def curves_picture(history: Sequence[Mapping[str, Any]], best: int) -> bytes:
    """A PNG of the training loss of each task, over its start, and of the main validation figures; a line marks the
    epoch whose weights were kept.
    """
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = [epoch["epoch"] for epoch in history]
    for name in history[0]["loss"]:
        first = history[0]["loss"][name] or 1.0
        left.plot(epochs, [epoch["loss"][name] / first for epoch in history], label=name)
    for name in [name for name in history[0]["validation"] if name.endswith(MAIN)]:
        right.plot(epochs, [epoch["validation"].get(name, np.nan) for epoch in history], label=name)
    left.set(xlabel="epoch", title="training loss over that of the first epoch")
    right.set(xlabel="epoch", title="validation")
    for axes in (left, right):
        axes.axvline(best, color="grey", linewidth=1, linestyle=":", label="kept")
        axes.legend(fontsize=7)
    return _png(figure)


def _png(figure: Figure) -> bytes:
    sink = io.BytesIO()
    figure.savefig(sink, format="png", dpi=110, metadata={"Software": None})
    return sink.getvalue()
