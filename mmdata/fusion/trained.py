"""A trained head from disk: its model, its outputs, and the towers that a query goes through."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmdata.errors import ConfigError
from mmdata.fusion.feed import Feed, Inputs, Plan, Where
from mmdata.fusion.heads import FUSED, Head
from mmdata.fusion.model import Architecture, FusionModel
from mmdata.fusion.pack import Pack
from mmdata.fusion.tasks.pairs import shared_width


def load_model(head: Head, device: str = "cpu") -> FusionModel:
    """The model of a trained head, ready to be asked. ConfigError for a closed-form alignment."""
    if not head.model:
        raise ConfigError(f"the head {head.name!r} is a closed-form alignment; it has no tasks")
    model = FusionModel(Architecture.from_json(head.model))
    model.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in head.tensors.items()})
    return model.to(device).eval()


def align_task(architecture: Architecture) -> str | None:
    """The task whose space is the head's output; None where the fused state is."""
    tasks = sorted(architecture.tasks.items())
    return next((name for name, task in tasks if task.type == "align" and task.weight), None)


def output_dims(architecture: Architecture) -> dict[str, int]:
    """Output -> dimensions: an input each of the alignment, or the fused state of all."""
    name = align_task(architecture)
    if name is None:
        return {FUSED: architecture.dim}
    task = architecture.tasks[name]
    dim = task.options.get("dim", 128) + shared_width(task.facts)
    return dict.fromkeys(sorted(task.options["between"]), dim)


@torch.no_grad()
def outputs(model: FusionModel, inputs: Inputs) -> dict[str, Tensor]:
    """What the head puts out, `(n, dim)` an output."""
    state = model(inputs)
    task = align_task(model.architecture)
    return {FUSED: state.fused} if task is None else model.task(task).outputs(state)


def projector(head: Head) -> Callable[[Pack], dict[str, NDArray[np.floating]]]:
    """The outputs of all rows of a pack, `(n, dim)` an output; NaN where a row lacks what it is made of."""
    model = load_model(head)

    def project(pack: Pack) -> dict[str, NDArray[np.floating]]:
        batch = Feed(pack, {}, Plan(Where.RESIDENT, "one shard")).batch(torch.arange(len(pack)))
        return {name: found.numpy() for name, found in outputs(model, batch.inputs).items()}

    return project


@dataclass(frozen=True, slots=True)
class TrainedTower:
    """One input of a trained head, alone."""

    model: FusionModel
    name: str

    def project(self, features: NDArray[np.floating]) -> NDArray[np.float32]:
        """`(n, dim_in)` to `(n, dim)`."""
        x = torch.from_numpy(np.ascontiguousarray(features, np.float32))
        found = outputs(self.model, {self.name: (x, torch.ones(len(x), dtype=torch.bool))})
        return found.get(FUSED, found.get(self.name, torch.empty(0))).numpy()


def tower(head: Head, name: str) -> TrainedTower:
    """The tower of one input. ConfigError for one that takes tokens, which a query's single vector is not."""
    if name in head.model["tokens"]:
        raise ConfigError(f"the input {name!r} of the head {head.name!r} takes tokens; a query has one vector")
    return TrainedTower(load_model(head), name)


def tensors_of(model: FusionModel) -> Mapping[str, NDArray[np.floating]]:
    """The weights and buffers of a model as the tensors of a head."""
    return {name: value.detach().cpu().numpy() for name, value in model.state_dict().items()}
