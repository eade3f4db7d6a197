"""One training config, many settings and seeds: a head each, and one table."""

import threading
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from mmdata.cluster import Resources, run
from mmdata.config import SweepConfig, TrainConfig, check
from mmdata.config.load import assign
from mmdata.fusion.heads import read_metrics
from mmdata.stages.train import recipe_of, train_head
from mmdata.storage.dataset import Dataset


@dataclass(frozen=True, slots=True)
class Setting:
    """One line of the table: the validation figure over the seeds."""

    setting: dict[str, Any]
    heads: list[str]
    figure: str
    values: list[float]
    mean: float
    deviation: float


def sweep(config: SweepConfig, resources: Resources) -> list[Setting]:
    """Train a head for every combination of `over` and every seed, on the workers; the best setting first.

    Heads that are there are not trained again. Raises the first error of a run when all have ended.
    """
    combinations = [dict(zip(config.over, values, strict=True)) for values in product(*config.over.values())]
    jobs = [(place, seed) for place in range(len(combinations)) for seed in range(config.seeds)]
    configs = {job: _config(config, combinations[job[0]], job) for job in jobs}
    errors = [ended.error for ended in run(partial(dict, configs), _train, jobs, resources) if ended.error]
    if errors:
        raise errors[0]
    table = [
        _setting(setting, [configs[place, seed] for seed in range(config.seeds)])
        for place, setting in enumerate(combinations)
    ]
    return sorted(table, key=lambda one: -one.mean)


def _config(config: SweepConfig, setting: dict[str, Any], job: tuple[int, int]) -> TrainConfig:
    values = config.train.model_dump(mode="json")
    for key, value in setting.items():
        assign(values, key, value)
    place, seed = job
    values["train"]["seed"] += seed
    values["name"] = f"{config.name}-{place}-{seed}"
    return check(TrainConfig, values, f"over {setting}")


_ALONE = threading.Lock()  # a worker has two items in flight, and torch one random generator a process


def _train(configs: dict[tuple[int, int], TrainConfig], job: tuple[int, int]) -> str:
    with _ALONE:
        train_head(configs[job])
    return configs[job].name


def _setting(setting: dict[str, Any], configs: list[TrainConfig]) -> Setting:
    dataset, figure = Dataset.open(configs[0].dataset), recipe_of(configs[0]).monitor
    values = [read_metrics(dataset, config.name)["validation"][figure] for config in configs]
    names = [config.name for config in configs]
    return Setting(setting, names, figure, values, float(np.mean(values)), float(np.std(values)))
