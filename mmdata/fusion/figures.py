"""What the tasks of a model give for rows, and how good that is."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmdata.fusion.feed import Feed
from mmdata.fusion.model import FusionModel
from mmdata.fusion.tasks import Outputs

MEAN = "tasks/mean"
"""The mean over several tasks of the main figure of each, all of which are 1 at best."""


@torch.no_grad()
def run_tasks(
    model: FusionModel, feed: Feed, rows: Tensor, without: Collection[str] = (), size: int = 4096
) -> dict[str, Outputs]:
    """The outputs of every task for some rows, in that order; inputs in `without`, or not in the feed, are missing."""
    model.eval()
    found: dict[str, list[dict[str, Tensor]]] = {name: [] for name in model.tasks}
    for batch in feed.batches(rows, size) if len(rows) else (feed.batch(rows),):
        state = model({name: pair for name, pair in batch.inputs.items() if name not in without})
        for name, pieces in found.items():
            pieces.append(model.task(name).outputs(state))
    return {name: _joined(pieces) for name, pieces in found.items()}


def collect(
    model: FusionModel, feed: Feed, rows: Tensor, without: Collection[str] = ()
) -> dict[str, tuple[Outputs, NDArray[Any]]]:
    """The outputs of every task and its targets."""
    found = run_tasks(model, feed, rows, without)
    return {name: (outputs, feed.target(name, rows)) for name, outputs in found.items()}


def _joined(pieces: list[dict[str, Tensor]]) -> Outputs:
    return {name: torch.cat([piece[name] for piece in pieces]).float().cpu().numpy() for name in pieces[0]}


def figures(model: FusionModel, feed: Feed, rows: Tensor, without: Collection[str] = ()) -> dict[str, float]:
    """TASK/FIGURE of some rows, and of several tasks MEAN."""
    collected = collect(model, feed, rows, without)
    found = {
        f"{name}/{figure}": value
        for name, (outputs, target) in collected.items()
        for figure, value in model.task(name).scores(outputs, target).items()
    }
    tasks = {name: (task.type, task.weight) for name, task in model.architecture.tasks.items()}
    main = [f"{name}/{model.task(name).main}" for name in judged(tasks)]
    if len(main) > 1:
        found[MEAN] = float(np.mean([found[name] for name in main if name in found] or [0.0]))
    return found


def judged(tasks: Mapping[str, tuple[str, float]]) -> list[str]:
    """The tasks that say how good a head is, by their types and weights: rebuilding only where there is no other."""
    weighted = [name for name, (_, weight) in tasks.items() if weight] or list(tasks)
    return [name for name in weighted if tasks[name][0] != "reconstruct"] or weighted
