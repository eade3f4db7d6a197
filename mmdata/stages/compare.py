"""A head beside its baselines."""

from dataclasses import asdict
from typing import Any

import torch

from mmdata.fusion.baselines import OURS, baselines, features, standings, verdict
from mmdata.fusion.feed import Feed
from mmdata.fusion.labels import labelled
from mmdata.fusion.model import FusionModel
from mmdata.fusion.splits import Part
from mmdata.fusion.train import collect
from mmdata.stages.learning import Lesson


def comparison(model: FusionModel, feed: Feed, one: Lesson, part: Part) -> dict[str, Any]:
    """For each task that has labels in `part`: the head and every baseline with intervals and all their figures, how
    many rows have a label, and the verdict.

    Baselines are fitted on train, their one option chosen on validation.
    """
    found = {}
    outputs = collect(model, feed, torch.from_numpy(one.parts[part]))
    names = {"train": Part.TRAIN, "validation": Part.VALIDATION, "asked": part}
    rows = {role: features(model, feed, one.parts[which]) for role, which in names.items()}
    for name, (mine, target) in outputs.items():
        task = model.task(name)
        given = {role: (rows[role], one.targets[name].numpy()[one.parts[which]]) for role, which in names.items()}
        others = baselines(task, given)
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
