"""`report.md` and its pictures."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mmdata.fusion.metrics import calibration_bins, confusion

MOST_CLASSES = 60  # more names than this do not fit an axis


def report(title: str, facts: Mapping[str, Any], pictures: Sequence[str]) -> str:
    """Markdown: each task beside its baselines with its classes and pictures, all figures, missing inputs, curves.

    A picture belongs to the task that its name begins with, as in TASK.confusion.png.
    """
    lines = [f"# {title}: {facts['rows']} rows", ""]
    own = {picture: picture.partition(".")[0] for picture in pictures}
    for name in sorted({*facts["beside"], *facts["classes"]}):
        lines += [f"## {name}", ""]
        if told := facts["beside"].get(name):
            lines += [f"This head {told['verdict']}.", "", *_standings(told), ""]
        lines += [f"![{picture}]({picture})" for picture, task in own.items() if task == name]
        lines += _classes(facts["classes"].get(name, []))
    lines += ["## Figures", "", "| figure | value |", "|---|---|"]
    lines += [f"| {name} | {value:.4f} |" for name, value in facts["figures"].items()]
    if facts["missing"]:
        lines += ["", "## Without some inputs", "", *_missing(facts["missing"])]
    rest = [f"![{picture}]({picture})" for picture, task in own.items() if task not in facts["classes"]]
    lines += ["", "## Training", "", *rest] if rest else []
    return "\n".join(lines) + "\n"


def _classes(table: Sequence[Mapping[str, Any]]) -> list[str]:
    if not table:
        return []
    title = "" if len(table) <= MOST_CLASSES else f"The {MOST_CLASSES} of {len(table)} classes with the least F1."
    rows = ["", title, "", "| class | rows | precision | recall | F1 |", "|---|---|---|---|---|"]
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


def _missing(missing: Mapping[str, Mapping[str, float]]) -> list[str]:
    names = list(next(iter(missing.values())))
    rows = ["| without | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    return rows + [
        f"| {left} | " + " | ".join(f"{found.get(name, np.nan):.3f}" for name in names) + " |"
        for left, found in missing.items()
    ]


def confusion_picture(probability: NDArray[np.floating], target: NDArray[np.int64], classes: Sequence[str]) -> bytes:
    """A PNG of the confusion matrix, each row a true class, scaled to one."""
    counts = confusion(probability, target).astype(float)
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.add_subplot()
    shown = axes.imshow(counts / np.maximum(counts.sum(1, keepdims=True), 1), vmin=0, vmax=1, cmap="Blues")
    figure.colorbar(shown, label="share of the true class")
    axes.set(xlabel="said", ylabel="true", title=f"{int(counts.sum())} rows")
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
    axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1), title="size: share of the rows")
    return _png(figure)


def curves_picture(history: Sequence[Mapping[str, Any]]) -> bytes:
    """A PNG of the training loss of each task, over its start, and of the main validation figures."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = [epoch["epoch"] for epoch in history]
    for name in history[0]["loss"]:
        first = history[0]["loss"][name] or 1.0
        left.plot(epochs, [epoch["loss"][name] / first for epoch in history], label=name)
    for name in [name for name in history[0]["validation"] if name.endswith(("accuracy", "r2", "map", "mean R@10"))]:
        right.plot(epochs, [epoch["validation"].get(name, np.nan) for epoch in history], label=name)
    left.set(xlabel="epoch", title="training loss over that of the first epoch")
    right.set(xlabel="epoch", title="validation")
    for axes in (left, right):
        axes.legend(fontsize=7)
    return _png(figure)


def _png(figure: Figure) -> bytes:
    sink = io.BytesIO()
    figure.savefig(sink, format="png", dpi=110, metadata={"Software": None})
    return sink.getvalue()
