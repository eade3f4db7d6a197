"""The model of a trained head: a stem an input, one fusion operator, and a module a task."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mmdata.fusion.feed import Inputs
from mmdata.fusion.operators import OPERATORS, Tokens, mean_token
from mmdata.fusion.tasks import TASKS, Context, State, Task

FLAT = 1e-6  # a dimension whose spread is less than this, relative to its mean, is constant


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """A task as it stands in `head.json`; `facts` are what it learned from the training labels (its classes)."""

    type: str
    weight: float = 1.0
    options: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Architecture:
    """All that is needed to build a model: its weights aside, a head is this."""

    inputs: dict[str, int]  # name -> dimensions of its features
    tokens: tuple[str, ...]  # inputs of which the tokens are taken
    fusion: str
    dim: int
    layers: int
    dropout: float
    tasks: dict[str, TaskFacts]

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        return asdict(self)

    @classmethod
    def from_json(cls, facts: dict[str, Any]) -> "Architecture":
        """The reverse of `to_json`."""
        return cls(
            **{
                **facts,
                "tokens": tuple(facts["tokens"]),
                "tasks": {name: TaskFacts(**task) for name, task in facts["tasks"].items()},
            }
        )


class Stem(nn.Module):
    """Features of one input, `(n, dim_in)` or `(n, t, dim_in)`, to tokens of the model.

    The standardiser is frozen: mean and spread of the training rows. What the mask leaves out is zeroed before
    anything is computed from it, so that NaN and garbage there change no bit.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, dim_in: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim_in))
        self.register_buffer("scale", torch.ones(dim_in))
        self.project = nn.Linear(dim_in, dim)
        self.missing = nn.Parameter(torch.randn(dim) * 0.02)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Standardised features `(n, t, dim_in)`, tokens `(n, t, dim)` and their mask `(n, t)`."""
        if x.ndim == 2:
            x, mask = x[:, None], mask[:, None]
        standard = torch.where(
            mask[..., None], (torch.where(mask[..., None], x, 0).float() - self.mean) / self.scale, 0
        )
        return standard, self.project(standard), mask

    def fill(self, tokens: Tensor, mask: Tensor, keep: Tensor) -> Tokens:
        """Tokens where a row that lacks the input, or is not in `keep` `(n,)`, has the embedding of a missing one."""
        there = (mask.any(1) & keep)[:, None]
        first = torch.arange(mask.shape[1], device=mask.device) == 0
        # not where(): ONNX Runtime has none for bools
        return torch.where(there[..., None], tokens, self.missing), (there & mask) | (~there & first)


class FusionModel(nn.Module):
    """Inputs and tasks are kept sorted by name, so their order in a config changes nothing."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        inputs, dim = dict(sorted(architecture.inputs.items())), architecture.dim
        self.stems = nn.ModuleDict({name: Stem(size, dim) for name, size in inputs.items()})
        operator = OPERATORS[architecture.fusion]
        self.fusion = operator(len(inputs), dim, architecture.layers, architecture.dropout)
        self.tasks = nn.ModuleDict(
            {
                name: TASKS[task.type](Context(dim, inputs, architecture.dropout, task.facts), **task.options)
                for name, task in sorted(architecture.tasks.items())
            }
        )

    def task(self, name: str) -> Task:
        """The task of that name."""
        return self.tasks[name]  # type: ignore[return-value]

    def forward(self, inputs: Inputs, keep: Mapping[str, Tensor] | None = None) -> State:
        """The state of rows. An input that is not given is missing in all of them; `keep` (n,) bool an input leaves
        out what modality dropout takes away.
        """
        inputs = self._absent(inputs) | inputs
        standard, parts = {}, {}
        for name, stem in self.stems.items():
            scaled, tokens, mask = stem(*inputs[name])
            standard[name] = mean_token(scaled, mask)
            parts[name] = (tokens, mask)
        present = {name: mask.any(1) for name, (_, mask) in parts.items()}
        fused = self.fuse(parts, present if keep is None else keep)
        return State(fused, parts, standard, present, self.fuse)

    def _absent(self, inputs: Inputs) -> Inputs:
        mask = next(iter(inputs.values()))[1]
        nothing = torch.zeros(len(mask), dtype=torch.bool, device=mask.device)
        dims = {name: dim for name, dim in self.architecture.inputs.items() if name not in inputs}
        return {name: (torch.zeros(len(mask), dim, device=mask.device), nothing) for name, dim in dims.items()}

    def fuse(self, parts: Mapping[str, Tokens], keep: Mapping[str, Tensor]) -> Tensor:
        """The fused state `(n, dim)` of the tokens of every input."""
        filled = [stem.fill(*parts[name], keep[name]) for name, stem in self.stems.items()]  # type: ignore[operator]
        return self.fusion(filled)  # type: ignore[no-any-return]


def mean_and_scale(total: Tensor, squares: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and spread `(dim,)` from sums in float64; a constant dimension is left as wide as it is."""
    count = count.clamp(min=1)
    mean = total / count
    spread = (squares / count - mean**2).clamp(min=0).sqrt()
    return mean.float(), torch.where(spread > FLAT * mean.abs(), spread, 1.0).float()
