"""A head on rows that it has not seen, beside its baselines: figures, intervals and `report.md`."""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mmdata.config import EvaluateConfig, TrainConfig, check
from mmdata.config.learn import MulticlassConfig
from mmdata.errors import ConfigError
from mmdata.fusion.feed import Feed, plan
from mmdata.fusion.figures import collect, figures
from mmdata.fusion.heads import Head, read_head, read_metrics
from mmdata.fusion.labels import strangers
from mmdata.fusion.metrics import per_class
from mmdata.fusion.model import FusionModel
from mmdata.fusion.report import calibration_picture, confusion_picture, curves_picture, report, values_picture
from mmdata.fusion.splits import Part
from mmdata.fusion.tasks import Multiclass, Outputs, Regression
from mmdata.fusion.trained import load_model
from mmdata.stages import Evaluation
from mmdata.stages.compare import comparison
from mmdata.stages.learning import Lesson, lesson
from mmdata.stages.train import pick_device
from mmdata.storage.dataset import Dataset, head_folder
from mmdata.storage.sealed import proof, seal

EACH = "each"


def evaluate(config: EvaluateConfig) -> Evaluation:
    """Judge a trained head, and write `evaluation.PART.json`, `report.md` and its pictures beside it.

    Raises NotFound without the head or its features, Conflict when features are of other encoders than the head's,
    ConfigError for a closed-form alignment and when the part has no rows.
    """
    dataset = Dataset.open(config.dataset)
    head = read_head(dataset, config.head)
    model = load_model(head, pick_device(None))
    part = Part(config.part)
    trained = _training(config.dataset, head)
    one = _lesson(trained, head, part)
    rows = torch.from_numpy(one.parts[part])
    if not len(rows):
        raise ConfigError(f"the split of the head {head.name!r} has no rows for {part}")
    device = pick_device(None)
    feed = Feed(one.pack, one.targets, plan(one.pack.nbytes, device), device)
    result = Evaluation(
        head=head.name,
        part=part.value,
        rows=len(rows),
        figures=figures(model, feed, rows),
        beside=comparison(model, feed, one, part) if config.baselines else {},
        strange=_strange(trained, one, part),
        missing={
            " and ".join(left): figures(model, feed, rows, without=left)
            for left in _left_out(config.missing, list(head.inputs))
        },
        where=f"{dataset.store.where(head_folder(head.name))}/report.md",
    )
    judged = collect(model, feed, rows)
    classes = {name: per_class(*one) for name, one in _classified(model, judged).items()}
    _write(dataset, result, _pictures(dataset, head, model, judged), classes, _about(dataset, head, one))
    return result


def _training(dataset: str, head: Head) -> TrainConfig:
    """The config that a head was trained by."""
    made_from = head.made_from["config"]
    return check(TrainConfig, {**made_from, "dataset": dataset, "name": head.name}, f"head {head.name!r}")


def _lesson(config: TrainConfig, head: Head, part: Part) -> Lesson:
    known = {name: task["facts"] for name, task in head.model["tasks"].items()}
    one = lesson(config, tuple({Part.TRAIN, Part.VALIDATION, part}), known)
    for name, input_ in one.pack.inputs.items():
        head.check_input(name, input_.card)
    return one


def _strange(config: TrainConfig, one: Lesson, part: Part) -> dict[str, int]:
    """How many rows each task leaves out because training has not their class."""
    if part is Part.TRAIN:
        return {}  # a label that is not among the shots is no stranger
    tasks = {name: task for name, task in config.tasks.items() if isinstance(task, MulticlassConfig)}
    targets = {name: one.targets[name].numpy() for name in tasks}
    counts = {name: strangers(one.rows, task.column, targets[name], one.parts[part]) for name, task in tasks.items()}
    return {name: count for name, count in counts.items() if count}


def _about(dataset: Dataset, head: Head, one: Lesson) -> str:
    """What the head is, as a sentence."""
    inputs = ", ".join(f"{name} ({card.name}, {card.dim} numbers)" for name, card in head.inputs.items())
    metrics = read_metrics(dataset, head.name)
    epoch = f"epoch {metrics['best_epoch']} of {len(metrics['history'])}, the best on validation"
    rows = ", ".join(f"{len(rows)} {part}" for part, rows in one.parts.items())
    return f"{head.model['fusion']} on {inputs}; weights of {epoch}. Rows: {rows}."


def _left_out(asked: tuple[str, ...], inputs: list[str]) -> list[tuple[str, ...]]:
    """The sets of inputs to leave out: those named, together; for `each`, every set that leaves one at least."""
    if asked == (EACH,):
        return [left for count in range(1, len(inputs)) for left in combinations(inputs, count)]
    unknown = [name for name in asked if name not in inputs]
    if unknown or len(asked) == len(inputs):
        raise ConfigError(f"--missing takes {EACH}, or some of {', '.join(inputs)} but not all")
    return [asked] if asked else []


def _pictures(
    dataset: Dataset, head: Head, model: FusionModel, judged: Mapping[str, tuple[Outputs, NDArray[Any]]]
) -> dict[str, bytes]:
    metrics = read_metrics(dataset, head.name)
    pictures = {"curves.png": curves_picture(metrics["history"], metrics["best_epoch"])}
    for name, (probability, truth, classes) in _classified(model, judged).items():
        pictures[f"{name}.confusion.png"] = confusion_picture(probability, truth, classes)
        pictures[f"{name}.calibration.png"] = calibration_picture(probability, truth)
    for name, (outputs, target) in judged.items():
        task = model.task(name)
        if isinstance(task, Regression) and (rows := ~np.isnan(target)).any():
            pictures[f"{name}.values.png"] = values_picture(outputs["value"][rows], task.in_its_unit(target[rows]))
    return pictures


def _classified(
    model: FusionModel, judged: Mapping[str, tuple[Outputs, NDArray[Any]]]
) -> dict[str, tuple[NDArray[Any], NDArray[Any], list[str]]]:
    """Probabilities, true classes and the names of the classes of each multiclass task, of the rows with a label."""
    found = {}
    for name, (outputs, target) in judged.items():
        task = model.task(name)
        if isinstance(task, Multiclass) and (rows := target >= 0).any():
            found[name] = outputs["probability"][rows], target[rows], [str(one) for one in task.classes]
    return found


def _write(
    dataset: Dataset,
    result: Evaluation,
    pictures: dict[str, bytes],
    classes: dict[str, list[dict[str, Any]]],
    about: str,
) -> None:
    folder = head_folder(result.head)
    facts = {
        "about": about,
        "rows": result.rows,
        "figures": result.figures,
        "beside": result.beside,
        "strange": result.strange,
        "missing": result.missing,
        "classes": classes,
    }
    text = report(f"{result.head}, {result.part}", facts, sorted(pictures))
    files = {"report.md": text.encode(), **pictures}
    dataset.store.delete(f"{folder}/report.json")
    for name, content in files.items():
        dataset.store.replace(f"{folder}/{name}", content)
    dataset.store.replace(f"{folder}/evaluation.{result.part}.json", seal(facts))
    dataset.store.replace(f"{folder}/report.json", seal({"part": result.part, "files": proof(files)}))
