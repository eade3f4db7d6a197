"""One training config, many settings and seeds: a head each, and one table."""

import threading
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from scipy import stats

from mmdata.cluster import Resources, run
from mmdata.config import EvaluateConfig, SweepConfig, TrainConfig, check
from mmdata.config.load import assign
from mmdata.fusion.heads import read_metrics
from mmdata.fusion.metrics import lower_is_better
from mmdata.fusion.splits import Part
from mmdata.stages.evaluate import evaluate
from mmdata.stages.train import recipe_of, train_head
from mmdata.storage.dataset import Dataset


@dataclass(frozen=True, slots=True)
class Setting:
    """One line of the table: the monitored figure over the seeds, and its lead, seed by seed, over the first setting
    that has this figure.

    Intervals are those of Student's t at 95%; None with one seed, and where a setting is the first.
    """

    setting: str
    heads: list[str]
    figure: str
    values: list[float]
    mean: float
    interval: tuple[float, float] | None
    lead: float | None = None
    lead_interval: tuple[float, float] | None = None


def sweep(config: SweepConfig, resources: Resources) -> list[Setting]:
    """Train a head for every setting and every seed, on the workers; of each figure the best setting first.

    Heads that are there are not trained again. Raises the first error of a run when all have ended.
    """
    settings = _settings(config)
    jobs = [(name, seed) for name in settings for seed in range(config.seeds)]
    configs = {job: _config(config, place // config.seeds, settings[job[0]], job) for place, job in enumerate(jobs)}
    outcomes = run(partial(dict, configs), _train, jobs, resources, name="sweep")
    errors = [ended.error for ended in outcomes if ended.error]
    if errors:
        raise errors[0]
    table = [_setting(name, [configs[name, seed] for seed in range(config.seeds)], config.part) for name in settings]
    first = {one.figure: one for one in reversed(table)}
    table = [one if one is first[one.figure] else _beside(one, first[one.figure]) for one in table]
    return sorted(table, key=lambda one: (one.figure, one.mean if lower_is_better(one.figure) else -one.mean))


def _settings(config: SweepConfig) -> dict[str, dict[str, Any]]:
    """What each setting changes, by its name: every combination of `over`, under every one of `settings`."""
    found = {}
    for name, changes in (config.settings or {"": {}}).items():
        for values in product(*config.over.values()):
            combined = dict(zip(config.over, values, strict=True))
            label = ", ".join([*([name] if name else []), *(f"{key} {value}" for key, value in combined.items())])
            found[label or config.train.name] = changes | combined
    return found


def _config(config: SweepConfig, place: int, setting: dict[str, Any], job: tuple[str, int]) -> TrainConfig:
    values = config.train.model_dump(mode="json")
    for key, value in setting.items():
        assign(values, key, value)
    name, seed = job
    values["train"]["seed"] += seed
    values |= {"name": f"{config.name}-{place}-{seed}", "baselines": False}  # they are the same for every setting
    return check(TrainConfig, values, f"the setting {name!r}")


_ALONE = threading.Lock()  # a worker has two items in flight, and torch one random generator a process


def _train(configs: dict[tuple[str, int], TrainConfig], job: tuple[str, int]) -> str:
    with _ALONE:
        train_head(configs[job])
    return configs[job].name


def _setting(name: str, configs: list[TrainConfig], part: str) -> Setting:
    figure = recipe_of(configs[0]).monitor
    values = [_figures(config, part)[figure] for config in configs]
    return Setting(name, [one.name for one in configs], figure, values, float(np.mean(values)), _interval(values))


def _figures(config: TrainConfig, part: str) -> dict[str, float]:
    if part == Part.VALIDATION:
        found: dict[str, float] = read_metrics(Dataset.open(config.dataset), config.name)["validation"]
        return found
    asked = {"dataset": config.dataset, "head": config.name, "part": part, "baselines": False}
    return evaluate(check(EvaluateConfig, asked, "the sweep")).figures


def _beside(one: Setting, first: Setting) -> Setting:
    leads = list(np.subtract(one.values, first.values))
    return replace(one, lead=float(np.mean(leads)), lead_interval=_interval(leads))


def _interval(values: list[float]) -> tuple[float, float] | None:
    """95% of the mean by Student's t."""
    if len(values) < 2:
        return None
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    return float(np.mean(values) - half), float(np.mean(values) + half)
