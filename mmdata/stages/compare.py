"""A head beside its baselines."""

from dataclasses import asdict
from typing import Any

import torch
from numpy.typing import NDArray

from mmdata.fusion.baselines import OURS, Rows, baselines, features, standings, to_fit, verdict
from mmdata.fusion.feed import Feed
from mmdata.fusion.figures import collect
from mmdata.fusion.labels import labelled
from mmdata.fusion.model import FusionModel
from mmdata.fusion.splits import Part
from mmdata.fusion.tasks import Outputs, Task
from mmdata.stages.learning import Lesson


def comparison(model: FusionModel, feed: Feed, one: Lesson, part: Part) -> dict[str, Any]:
    """For each task that has labels in `part`: the head and every baseline with intervals and all their figures, how
    many rows have a label, and the verdict.

    Baselines are fitted on train, their one option chosen on validation.
    """
    found = {}
    outputs = collect(model, feed, torch.from_numpy(one.parts[part]))
    asked = features(model, feed, one.parts[part])
    for name, (mine, target) in outputs.items():
        task = model.task(name)
        others = _others(task, model, feed, one, one.targets[name].numpy(), (asked, target))
        table = standings(task, mine, others, target)
        if table:
            found[name] = {
                "rows": int(labelled(target).sum()),
                "figure": task.main,
                "verdict": verdict(table),
                "table": [asdict(standing) for standing in table],
                "figures": {who: task.scores(said, target) for who, said in {OURS: mine, **others}.items()},
            }
    return found


def _others(
    task: Task,
    model: FusionModel,
    feed: Feed,
    one: Lesson,
    target: NDArray[Any],
    asked: tuple[Rows, NDArray[Any]],
) -> dict[str, Outputs]:
    """What every baseline says of the rows asked; none where no row of train, or of validation, has a label."""
    fit = {role: to_fit(one.parts[Part(role)], target) for role in ("train", "validation")}
    if not all(map(len, fit.values())):
        return {}
    given: dict[str, tuple[Rows, NDArray[Any]]] = {
        role: (features(model, feed, rows), target[rows]) for role, rows in fit.items()
    }
    return baselines(task, given | {"asked": asked})
