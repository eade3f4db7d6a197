"""The training loop.

Nothing random depends on the past: the order of an epoch comes from seed and epoch, what is drawn in a step from
seed, epoch and step. So a run that was killed anywhere goes on from its last checkpoint to the same bits.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mmdata.crash import point
from mmdata.errors import ConfigError
from mmdata.fusion.feed import Batch, Feed
from mmdata.fusion.figures import collect, figures
from mmdata.fusion.losses import Balance
from mmdata.fusion.metrics import better
from mmdata.fusion.model import FusionModel, mean_and_scale
from mmdata.fusion.splits import Part, Parts
from mmdata.fusion.tasks import Align

START_ROWS = 4096  # training rows from which the first loss of each task is taken
Watch = Callable[[dict[str, Any]], None]
"""Called with what the history says of each epoch."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train; `monitor` is TASK/FIGURE on the validation rows, or `mmdata.fusion.figures.MEAN`."""

    monitor: str
    epochs: int = 40
    batch: int = 256  # rows
    lr: float = 1e-3
    weight_decay: float = 0.05
    warmup: float = 0.05  # share of the steps
    clip: float = 1.0  # norm of the gradient
    patience: int = 8  # epochs without a better figure
    modality_dropout: float = 0.3
    balance: str = "ratio"
    seed: int = 0


@dataclass(slots=True)
class Progress:
    """Where a run is: what a checkpoint holds beside the tensors."""

    epoch: int = 0
    step: int = 0  # of the epoch
    best: float | None = None
    best_epoch: int = -1
    history: list[dict[str, Any]] = field(default_factory=list)


@dataclass(slots=True)
class Run:
    """A model in training and all that a checkpoint must bring back."""

    model: FusionModel
    balance: Balance
    optimiser: torch.optim.Optimizer
    best: dict[str, Tensor]  # the weights of the best epoch so far
    sums: Tensor  # of each task's loss over the steps of this epoch
    progress: Progress = field(default_factory=Progress)


class Crew(Protocol):
    """Processes that train one model: each takes its rows of every batch."""

    rank: int
    size: int

    def average(self, tensors: Sequence[Tensor]) -> None:
        """The mean over the crew, in place, in all of it."""

    def average_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """The same of gradients; one that a member lacks counts as zero, one that all lack stays away."""


class Alone:
    """This process."""

    rank, size = 0, 1

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Nothing."""

    def average_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Nothing."""


ALONE = Alone()


class Keeper(Protocol):
    """Where checkpoints go."""

    def load(self, run: Run) -> bool:
        """Bring a run back to its last checkpoint; False when there is none."""

    def save(self, run: Run) -> None:
        """Keep a checkpoint, if it is time; called after every step and every epoch."""


def train(
    model: FusionModel,
    feed: Feed,
    parts: Parts,
    recipe: Recipe,
    keeper: Keeper,
    watches: Sequence[Watch] = (),
    crew: Crew = ALONE,
) -> Run:
    """Train until the epochs or the patience end; the model that comes back has the weights of its best epoch.

    In a crew the batches are those of one process, and so is the mean gradient where every row has a label; what a
    batch compares its rows with (align, match) are the rows of the same process.
    Raises ConfigError when `recipe.monitor` is no figure of the validation rows, and when a loss or a weight is no
    number at the end of an epoch.
    """
    rows = torch.from_numpy(parts[Part.TRAIN])
    run = _start(model, feed, rows, recipe)
    keeper.load(run)
    steps = math.ceil(len(rows) / recipe.batch)
    at = run.progress
    while at.epoch < recipe.epochs and at.epoch - at.best_epoch <= recipe.patience:
        model.train()
        order = feed.shuffled(rows, recipe.seed, at.epoch, start=at.step * recipe.batch)
        for batch in feed.batches(order, recipe.batch, (crew.rank, crew.size)):
            torch.manual_seed(_seed(recipe.seed, at.epoch, at.step, *([crew.rank] if crew.rank else [])))
            _set_lr(run.optimiser, recipe, at.epoch * steps + at.step, recipe.epochs * steps)
            run.sums += _step(run, batch, recipe, crew)
            at.step += 1
            keeper.save(run)
            point("train.step")
        crew.average([run.sums])
        _end_epoch(run, feed, parts[Part.VALIDATION], recipe, steps, crew)
        for watch in watches:
            watch(at.history[-1])
        keeper.save(run)
        point("train.epoch")
    model.load_state_dict(run.best)
    _settle(model, feed, torch.from_numpy(parts[Part.VALIDATION]))
    return run


def _settle(model: FusionModel, feed: Feed, validation: Tensor) -> None:
    """What tasks choose by validation when all is learned."""
    found = collect(model, feed, validation)
    for name, task in model.tasks.items():
        if isinstance(task, Align):
            task.settle(*found[name])


def _start(model: FusionModel, feed: Feed, rows: Tensor, recipe: Recipe) -> Run:
    weights = {name: task.weight for name, task in model.architecture.tasks.items()}
    torch.manual_seed(_seed(recipe.seed, 0, 0))
    start = first_losses(model, feed, feed.shuffled(rows, recipe.seed, 0)[:START_ROWS], recipe.batch)
    balance = Balance(recipe.balance, weights, start).to(feed.device)
    parameters = [p for module in (model, balance) for p in module.parameters() if p.requires_grad]
    if not parameters:
        raise ConfigError("every parameter of the head is frozen; there is nothing to train")
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},  # biases, norms, temperatures
    ]
    sums = torch.zeros(len(start), device=feed.device)
    return Run(model, balance, torch.optim.AdamW(groups, lr=recipe.lr), _copied(model), sums)


def _step(run: Run, batch: Batch, recipe: Recipe, crew: Crew = ALONE) -> Tensor:
    """One update; the loss of each task, by name, `(tasks,)`."""
    keep = modality_dropout(batch, recipe.modality_dropout)
    losses = task_losses(run.model, batch, run.balance.names, keep)
    run.optimiser.zero_grad(set_to_none=True)
    (run.balance(losses) * batch.share).backward()
    crew.average_gradients([*run.model.parameters(), *run.balance.parameters()])
    nn.utils.clip_grad_norm_(run.model.parameters(), recipe.clip)
    run.optimiser.step()
    return torch.stack([losses[name].detach() for name in run.balance.names])


def task_losses(
    model: FusionModel, batch: Batch, names: list[str], keep: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """The loss of each of the tasks `names`."""
    state = model(batch.inputs, keep)
    return {name: model.task(name).loss(state, batch.targets[name]) for name in names}


def modality_dropout(batch: Batch, rate: float) -> dict[str, Tensor] | None:
    """Which inputs each row keeps, `(n,)` bool an input: each is dropped with `rate`, but never all that a row has."""
    if rate == 0 or len(batch.inputs) < 2:
        return None
    names = sorted(batch.inputs)
    masks = [batch.inputs[name][1] for name in names]
    present = torch.stack([mask if mask.ndim == 1 else mask.any(1) for mask in masks], dim=1)
    keep = present & (torch.rand(present.shape, device=present.device) >= rate)
    keep = torch.where(keep.any(1, keepdim=True), keep, present)
    return dict(zip(names, keep.unbind(1), strict=True))


@torch.no_grad()
def first_losses(model: FusionModel, feed: Feed, rows: Tensor, size: int) -> dict[str, float]:
    """The mean loss of each task that has a weight, before training."""
    names = sorted(name for name, task in model.architecture.tasks.items() if task.weight)
    model.eval()
    found = [task_losses(model, batch, names) for batch in feed.batches(rows, size)]
    return {name: float(torch.stack([losses[name] for losses in found]).mean()) for name in names}


@torch.no_grad()
def fit_standardiser(model: FusionModel, feed: Feed, rows: Tensor, size: int = 4096) -> None:
    """Mean and spread of every input over the training rows, into the stems; summed in float64."""
    stems: dict[str, Any] = dict(model.stems.items())
    sums = {
        name: torch.zeros(3, len(stem.mean), dtype=torch.float64, device=feed.device) for name, stem in stems.items()
    }
    for batch in feed.batches(rows.sort().values, size):
        for name, (x, mask) in batch.inputs.items():
            there = x[mask].double()
            sums[name] += torch.stack([there.sum(0), (there**2).sum(0), torch.full_like(there[:1].sum(0), len(there))])
    for name, stem in stems.items():
        stem.mean, stem.scale = mean_and_scale(*sums[name])


def _end_epoch(run: Run, feed: Feed, validation: NDArray[np.int64], recipe: Recipe, steps: int, crew: Crew) -> None:
    at = run.progress
    losses = dict(zip(run.balance.names, (run.sums / steps).tolist(), strict=True))
    _check_finite(run.model, losses, at.epoch)
    found = figures(run.model, feed, torch.from_numpy(validation))
    if recipe.monitor not in found:
        raise ConfigError(
            f"monitor {recipe.monitor!r} is no figure of the validation rows; there are: {', '.join(found)}"
        )
    at.history.append({"epoch": at.epoch, "loss": losses, "validation": found})
    agreed = torch.tensor([found[recipe.monitor]], dtype=torch.float64, device=feed.device)
    crew.average([agreed])  # all must end at the same epoch, and two devices may round differently
    value = float(agreed)
    if at.best is None or better(recipe.monitor, value, at.best):
        at.best, at.best_epoch = value, at.epoch
        run.best = _copied(run.model)
    run.sums.zero_()
    at.epoch, at.step = at.epoch + 1, 0


def _check_finite(model: nn.Module, losses: Mapping[str, float], epoch: int) -> None:
    lost = [name for name, loss in losses.items() if not math.isfinite(loss)]
    if lost or not all(bool(torch.isfinite(weight).all()) for weight in model.parameters()):
        what = f"the loss of task {lost[0]!r} is {losses[lost[0]]}" if lost else "a weight is not finite"
        raise ConfigError(f"{what} after epoch {epoch}, and no head is written; lower train.lr")


def _copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def _set_lr(optimiser: torch.optim.Optimizer, recipe: Recipe, step: int, steps: int) -> None:
    """Linear warm-up, then half a cosine down to zero."""
    warm = max(1, round(recipe.warmup * steps))
    rate = (step + 1) / warm if step < warm else (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm))) / 2
    for group in optimiser.param_groups:
        group["lr"] = recipe.lr * rate


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
