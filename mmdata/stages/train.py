"""Cached features -> a head: `heads/NAME/`."""

import time
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mmdata.cluster import Resources, run_together
from mmdata.config import TrainConfig
from mmdata.errors import ConfigError
from mmdata.fusion.checkpoint import Checkpoints, ReadOnly
from mmdata.fusion.feed import Feed, plan
from mmdata.fusion.figures import MEAN, figures, judged
from mmdata.fusion.heads import Head, find_head, read_head, read_metrics, write_head
from mmdata.fusion.model import FusionModel
from mmdata.fusion.splits import Part
from mmdata.fusion.tasks import TASKS
from mmdata.fusion.trackers import find_tracker, forget, tracking
from mmdata.fusion.train import ALONE, Crew, Recipe, Run, Watch, fit_standardiser, train
from mmdata.fusion.trained import output_dims, tensors_of
from mmdata.stages import Summary
from mmdata.stages.compare import comparison
from mmdata.stages.learning import Lesson, architecture, label_counts, lesson
from mmdata.storage.dataset import Dataset, head_folder
from mmdata.storage.store import sha256

PLACE = ("device", "cpus_per_worker", "gpus_per_worker", "ray_address")
ASIDE = ("dataset", "name", "overwrite", "checkpoint", "baselines", "trackers", *PLACE)  # what no weight depends on
SEEN = (Part.TRAIN, Part.VALIDATION)  # test labels are not read here
FROZEN = {"none": (), "stems": ("stems.",), "fusion": ("stems.", "fusion.")}
"""Prefixes of the weights that stay as they are."""


def train_head(config: TrainConfig, watch: Watch = lambda _: None) -> Summary:
    """Train and write the head, unless it is there; a run that was killed goes on from its last checkpoint.

    Raises NotFound without features, ConfigError for labels, splits or figures that do not fit, Conflict when a head
    or a checkpoint of this name was made from something else.
    """
    since = time.monotonic()
    dataset = Dataset.open(config.dataset)
    one = _lesson(config)
    checkpoints = _checkpoints(config, dataset, one)
    if config.overwrite:
        checkpoints.delete()
        forget(dataset.store, config.name)
    elif find_head(dataset, config.name, checkpoints.made_from):
        checkpoints.delete()  # a run may have been killed between the two
        return _summary(config, dataset, one, time.monotonic() - since)
    if config.workers > 1:
        place = Resources(config.workers, config.cpus_per_worker, config.gpus_per_worker, config.ray_address)
        run_together(partial(_train_in_a_crew, config), place)
    else:
        _train(config, dataset, one, checkpoints, watch, ALONE)
    checkpoints.delete()
    return _summary(config, dataset, one, time.monotonic() - since)


def _lesson(config: TrainConfig) -> Lesson:
    """What is to be learned, once it is sure that there is somebody to tell."""
    for name in config.trackers:
        find_tracker(name)
    return lesson(config, SEEN)


def _train_in_a_crew(config: TrainConfig) -> None:
    from mmdata.fusion.crew import Joined

    dataset, one = Dataset.open(config.dataset), _lesson(config)
    _train(config, dataset, one, _checkpoints(config, dataset, one), lambda _: None, Joined())


def _train(config: TrainConfig, dataset: Dataset, one: Lesson, keeper: Checkpoints, watch: Watch, crew: Crew) -> None:
    """Train, and write the head; in a crew the first of it writes."""
    device = pick_device(config.device)
    model = _model(config, dataset, one, device)
    feed = Feed(one.pack, one.targets, plan(one.pack.nbytes, device), device)
    if config.init is None:
        fit_standardiser(model, feed, torch.from_numpy(one.parts[Part.TRAIN]))
    if crew.rank:
        train(model, feed, one.parts, recipe_of(config), ReadOnly(keeper), (), crew)
        return
    with tracking(dataset.store, config.name, config.trackers, keeper.made_from["config"]) as track:
        run = train(model, feed, one.parts, recipe_of(config), keeper, (track, watch), crew)
    write_head(dataset, _head(config, one, model, keeper.made_from), _metrics(config, run, feed, one))


def describe_training(config: TrainConfig) -> dict[str, Any]:
    """What `--dry-run` says: rows, coverage, labels, parameters and where the features will be."""
    one = _lesson(config)
    device = pick_device(config.device)
    shape = architecture(config, one)
    where = plan(one.pack.nbytes, device)
    return {
        "rows": {part.value: len(rows) for part, rows in one.parts.items()},
        "coverage": {name: round(share, 4) for name, share in one.pack.coverage.items()},
        "labels": label_counts(config, one),
        "classes": {name: len(facts["classes"]) for name, facts in one.facts.items() if "classes" in facts},
        "fusion": shape.fusion,
        "parameters": sum(p.numel() for p in FusionModel(shape).parameters()),
        "features": f"{where.where}: {where.why}",
        "monitor": recipe_of(config).monitor,
    }


def pick_device(asked: str | None) -> str:
    """The device asked for, else CUDA where there is one; Ray shows each worker its own alone."""
    return asked or ("cuda" if torch.cuda.is_available() else "cpu")


def _checkpoints(config: TrainConfig, dataset: Dataset, one: Lesson) -> Checkpoints:
    path = f"{head_folder(config.name)}/checkpoint.safetensors"
    return Checkpoints(dataset.store, path, _made_from(config, dataset, one), config.checkpoint)


def _made_from(config: TrainConfig, dataset: Dataset, one: Lesson) -> dict[str, Any]:
    """All that decides the weights: the config, the features by content, the labels, the head that it starts from."""
    options = config.model_dump(mode="json", exclude=set(ASIDE))
    labels = [sha256(_bytes(target)) for _, target in sorted(one.targets.items())]
    init = {"init_sha256": read_head(dataset, config.init).sha256} if config.init else {}
    return {"config": options, "pack": one.pack.name, "labels": labels} | init


def _bytes(target: Tensor) -> bytes:
    return target.numpy().tobytes()


def _model(config: TrainConfig, dataset: Dataset, one: Lesson, device: str) -> FusionModel:
    torch.manual_seed(config.train.seed)
    model = FusionModel(architecture(config, one))
    if config.init is not None:
        _take_over(model, read_head(dataset, config.init), config.freeze, one)
    return model.to(device)


def _take_over(model: FusionModel, head: Head, freeze: str, one: Lesson) -> None:
    """Stems and fusion of another head, whose inputs must be of the same encoders; tasks start anew."""
    for name, input_ in one.pack.inputs.items():
        head.check_input(name, input_.card)
    trunk = {name: torch.from_numpy(t) for name, t in head.tensors.items() if name.startswith(FROZEN["fusion"])}
    mine = {name: value.shape for name, value in model.state_dict().items() if name.startswith(FROZEN["fusion"])}
    if {name: value.shape for name, value in trunk.items()} != mine:
        raise ConfigError(f"the head {head.name!r} has another trunk; take its model section: {head.model}")
    model.load_state_dict(trunk, strict=False)
    for name, parameter in model.named_parameters():
        parameter.requires_grad = not name.startswith(FROZEN[freeze])


def recipe_of(config: TrainConfig) -> Recipe:
    """The recipe of a config; where it names no figure to watch, the main one of its task, or the mean of several."""
    options = config.train.model_dump()
    tasks = judged({name: (task.type, task.weight) for name, task in config.tasks.items()})
    watched = MEAN if len(tasks) > 1 else f"{tasks[0]}/{TASKS[config.tasks[tasks[0]].type].main}"
    return Recipe(**options | {"monitor": options["monitor"] or watched})


def _head(config: TrainConfig, one: Lesson, model: FusionModel, made_from: dict[str, Any]) -> Head:
    return Head(
        name=config.name,
        sha256="",
        kind="fusion",
        inputs={name: input_.card for name, input_ in one.pack.inputs.items()},
        outputs=output_dims(model.architecture),
        made_from=made_from,
        model=model.architecture.to_json(),
        tensors=dict(tensors_of(model)),
    )


def _metrics(config: TrainConfig, run: Run, feed: Feed, one: Lesson) -> dict[str, Any]:
    validation = torch.from_numpy(one.parts[Part.VALIDATION])
    return {
        "best_epoch": run.progress.best_epoch,
        "validation": figures(run.model, feed, validation),
        "beside": comparison(run.model, feed, one, Part.VALIDATION) if config.baselines else {},
        "history": run.progress.history,
    }


def _summary(config: TrainConfig, dataset: Dataset, one: Lesson, seconds: float) -> Summary:
    metrics = read_metrics(dataset, config.name)
    used = sum(len(one.parts[part]) for part in SEEN)
    return Summary(
        stage="train",
        where=dataset.store.where(head_folder(config.name)),
        shards=1,
        shards_before=0,
        rows_in=used,
        rows_out=used,
        absent=0,
        rejected={},
        repaired={},
        seconds=seconds,
        phases={},
        rows_now=0,
        next=f"mmdata evaluate {config.dataset} --head {config.name}",
        facts={
            "rows": {part.value: len(rows) for part, rows in one.parts.items()},
            "coverage": one.pack.coverage,
            "best epoch": f"{metrics['best_epoch']} of {len(metrics['history'])}",
            "validation": metrics["validation"],
            **{f"validation, {name}": told["verdict"] for name, told in metrics["beside"].items()},
        },
    )
