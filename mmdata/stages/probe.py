"""The linear probe: what a logistic regression reads from frozen features."""

from dataclasses import dataclass

import numpy as np
import torch

from mmdata.config import ProbeConfig, TrainConfig, check
from mmdata.errors import ConfigError
from mmdata.fusion.baselines import features
from mmdata.fusion.feed import Feed, plan
from mmdata.fusion.labels import shots
from mmdata.fusion.metrics import intervals
from mmdata.fusion.model import FusionModel
from mmdata.fusion.probe import fit_probe
from mmdata.fusion.splits import Part
from mmdata.fusion.train import fit_standardiser
from mmdata.stages.learning import architecture, lesson

TASK = "label"


@dataclass(frozen=True, slots=True)
class Probed:
    """Accuracy on test of each draw of the training rows, the mean, and the 95% interval of the first draw."""

    features: tuple[str, ...]
    rows: dict[str, int]
    classes: int
    shots: int | None
    c: list[float]
    accuracy: list[float]
    mean: float
    low: float
    high: float


def probe(config: ProbeConfig) -> Probed:
    """Sweep the regularisation, choose on validation, judge on test; with `shots`, for several draws of them.

    Raises NotFound without features, ConfigError for labels or a split that do not fit.
    """
    one = lesson(_as_training(config), tuple(Part))
    model = FusionModel(architecture(_as_training(config), one))
    feed = Feed(one.pack, one.targets, plan(one.pack.nbytes, "cpu"))
    fit_standardiser(model, feed, torch.from_numpy(one.parts[Part.TRAIN]))
    target = one.targets[TASK].numpy()
    labelled = {part: rows[target[rows] >= 0] for part, rows in one.parts.items()}
    empty = [part.value for part, rows in labelled.items() if not len(rows)]
    if empty:
        raise ConfigError(f"no row of {' and '.join(empty)} has a label in the column {config.column!r}")
    x = {part: features(model, feed, rows).all for part, rows in labelled.items()}
    y = {part: target[rows] for part, rows in labelled.items()}
    right, chosen = [], []
    for seed in range(config.seeds):
        kept = labelled[Part.TRAIN]
        if config.shots:
            kept = shots(one.targets[TASK], kept, config.shots, seed)
        places = np.searchsorted(labelled[Part.TRAIN], kept)
        found = fit_probe(x[Part.TRAIN][places], y[Part.TRAIN][places], x[Part.VALIDATION], y[Part.VALIDATION])
        said = found.probability(x[Part.TEST], len(one.facts[TASK]["classes"])).argmax(1)
        right.append((said == y[Part.TEST]).astype(float))
        chosen.append(found.c)
    ((low, high),) = intervals([lambda drawn: float(right[0][drawn].mean())], len(right[0]))
    return Probed(
        features=config.features,
        rows={part.value: len(rows) for part, rows in labelled.items()},
        classes=len(one.facts[TASK]["classes"]),
        shots=config.shots,
        c=chosen,
        accuracy=[float(each.mean()) for each in right],
        mean=float(np.mean(right)),
        low=low,
        high=high,
    )


def _as_training(config: ProbeConfig) -> TrainConfig:
    """The training config with the same rows and labels."""
    views = {f"view{number}": name for number, name in enumerate(config.features)}
    values = {
        "dataset": config.dataset,
        "name": "probe",
        "data": {"features": views, "labels": config.labels},
        "split": config.split,
        "tasks": {TASK: {"type": "multiclass", "column": config.column}},
        "model": {"fusion": "linear", "dim": 8},
    }
    return check(TrainConfig, values, "the probe")
