"""What a head can learn: a loss on the state of a batch, outputs, and figures that say how good they are.

Each task has its own labels; a row without one (-1, or NaN) trains the other tasks and not this one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Protocol

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from mmdata.errors import ConfigError
from mmdata.fusion import losses, metrics
from mmdata.fusion.operators import Tokens, mean_token

Outputs = dict[str, NDArray[np.floating]]


@dataclass(frozen=True, slots=True)
class State:
    """A batch inside a model."""

    fused: Tensor  # (n, dim), from the inputs that modality dropout has left
    parts: dict[str, Tokens]  # the tokens of each input, whether kept or not
    standard: dict[str, Tensor]  # (n, dim_in), standardised features, the mean over tokens
    present: dict[str, Tensor]  # (n,) bool, which rows have the input
    fuse: Callable[[Mapping[str, Tokens], Mapping[str, Tensor]], Tensor]

    def pooled(self, name: str) -> Tensor:
        """The mean token of an input, `(n, dim)`."""
        return mean_token(*self.parts[name])


@dataclass(frozen=True, slots=True)
class Context:
    """What every task is built from."""

    dim: int  # of the fused state
    inputs: Mapping[str, int]  # name -> dimensions
    dropout: float
    facts: Mapping[str, Any]  # from `learn`


class Task(Protocol):
    """What every task is: built from a Context and its own options."""

    main: str  # the figure that early stopping looks at unless another is named

    @staticmethod
    def learn(labels: pa.ChunkedArray) -> dict[str, Any]:
        """What is taken from the training labels once, as JSON types."""

    @staticmethod
    def encode(labels: pa.ChunkedArray, facts: Mapping[str, Any]) -> Tensor:
        """Labels as a tensor of n rows; -1 or NaN where there is none."""

    def loss(self, state: State, target: Tensor) -> Tensor:
        """The mean over the rows that have a label; zero when none has."""

    def outputs(self, state: State) -> dict[str, Tensor]:
        """Arrays of n rows, from which `scores` and `columns` are made."""

    def scores(self, outputs: Outputs, target: NDArray[Any]) -> dict[str, float]:
        """Figures by name, of the rows that have a label."""

    def columns(self, outputs: Outputs) -> dict[str, pa.Array]:
        """What `mmdata predict` writes."""


class Multiclass(nn.Module):
    """One class of several: cross-entropy."""

    main = "accuracy"

    def __init__(self, context: Context, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.classes: list[Any] = context.facts["classes"]
        self.smoothing = label_smoothing
        self.out = nn.Linear(context.dim, len(self.classes))

    @staticmethod
    def learn(labels: pa.ChunkedArray) -> dict[str, Any]:
        classes = sorted(pc.drop_null(pc.unique(labels)).to_pylist())
        if len(classes) < 2:
            raise ConfigError(f"the training rows have {len(classes)} classes; a multiclass task needs two at least")
        return {"classes": classes}

    @staticmethod
    def encode(labels: pa.ChunkedArray, facts: Mapping[str, Any]) -> Tensor:
        found = pc.index_in(labels, pa.array(facts["classes"], labels.type))
        return torch.from_numpy(np.array(pc.fill_null(found, -1), np.int64))

    def loss(self, state: State, target: Tensor) -> Tensor:
        each = functional.cross_entropy(
            self.out(state.fused), target, ignore_index=-1, reduction="sum", label_smoothing=self.smoothing
        )
        return each / (target >= 0).sum().clamp(min=1)

    def outputs(self, state: State) -> dict[str, Tensor]:
        return {"probability": self.out(state.fused).softmax(-1)}

    def scores(self, outputs: Outputs, target: NDArray[Any]) -> dict[str, float]:
        return metrics.classification(outputs["probability"], target)

    def columns(self, outputs: Outputs) -> dict[str, pa.Array]:
        best = outputs["probability"].argmax(1)
        return {"": pa.array(self.classes).take(pa.array(best)), "probability": pa.array(outputs["probability"].max(1))}


class Multilabel(nn.Module):
    """Any number of labels, from a list column or one of JSON lists: binary cross-entropy a label."""

    main = "map"

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.classes: list[str] = context.facts["classes"]
        self.out = nn.Linear(context.dim, len(self.classes))

    @staticmethod
    def learn(labels: pa.ChunkedArray) -> dict[str, Any]:
        return {"classes": sorted({label for row in _lists(labels) for label in row or ()})}

    @staticmethod
    def encode(labels: pa.ChunkedArray, facts: Mapping[str, Any]) -> Tensor:
        places = {label: place for place, label in enumerate(facts["classes"])}
        rows = _lists(labels)
        target = torch.full((len(rows), len(places)), torch.nan)
        for row, given in enumerate(rows):
            if given is not None:
                target[row] = 0
                target[row, [places[label] for label in given if label in places]] = 1
        return target

    def loss(self, state: State, target: Tensor) -> Tensor:
        return losses.masked_bce(self.out(state.fused), target)

    def outputs(self, state: State) -> dict[str, Tensor]:
        return {"probability": self.out(state.fused).sigmoid()}

    def scores(self, outputs: Outputs, target: NDArray[Any]) -> dict[str, float]:
        return metrics.multilabel(outputs["probability"], target)

    def columns(self, outputs: Outputs) -> dict[str, pa.Array]:
        chosen = [[self.classes[i] for i in np.flatnonzero(row > 0.5)] for row in outputs["probability"]]
        flat = pa.array(np.ascontiguousarray(outputs["probability"], np.float32).reshape(-1))
        return {
            "": pa.array(chosen, pa.list_(pa.string())),
            "probability": pa.FixedSizeListArray.from_arrays(flat, len(self.classes)),
        }


def _lists(labels: pa.ChunkedArray) -> list[list[str] | None]:
    rows = labels.to_pylist()
    try:  # metadata keeps a list as JSON
        rows = [orjson.loads(row) if isinstance(row, str) else row for row in rows]
    except ValueError as error:
        raise ConfigError(f"a multilabel column holds lists, or lists as JSON: {error}") from error
    if not all(row is None or isinstance(row, list) for row in rows):
        raise ConfigError("a multilabel column holds lists, or lists as JSON, not single values")
    return rows


class Regression(nn.Module):
    """A number: squared error on the standardised target, figures in its own unit."""

    main = "r2"

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.mean, self.scale = context.facts["mean"], context.facts["scale"]
        self.out = nn.Linear(context.dim, 1)

    @staticmethod
    def learn(labels: pa.ChunkedArray) -> dict[str, Any]:
        values = _numbers(labels)
        values = values[np.isfinite(values)]
        if len(values) < 2 or values.std() == 0:
            raise ConfigError("the training rows of a regression task need two different numbers at least")
        return {"mean": float(values.mean()), "scale": float(values.std())}

    @staticmethod
    def encode(labels: pa.ChunkedArray, facts: Mapping[str, Any]) -> Tensor:
        return torch.from_numpy((_numbers(labels) - facts["mean"]) / facts["scale"]).float()

    def loss(self, state: State, target: Tensor) -> Tensor:
        return losses.masked_mean((self.out(state.fused)[:, 0] - target.nan_to_num()) ** 2, ~target.isnan())

    def outputs(self, state: State) -> dict[str, Tensor]:
        return {"value": self.out(state.fused)[:, 0] * self.scale + self.mean}

    def scores(self, outputs: Outputs, target: NDArray[Any]) -> dict[str, float]:
        return metrics.regression(outputs["value"], target * self.scale + self.mean)

    def columns(self, outputs: Outputs) -> dict[str, pa.Array]:
        return {"": pa.array(outputs["value"])}


def _numbers(labels: pa.ChunkedArray) -> NDArray[np.float64]:
    try:
        return np.array(pc.fill_null(pc.cast(labels, pa.float64()), np.nan), np.float64)
    except pa.ArrowException as error:
        raise ConfigError(f"a regression column holds numbers: {error}") from error


def _learn_nothing(labels: pa.ChunkedArray) -> dict[str, Any]:
    return {}


def _encode_groups(labels: pa.ChunkedArray, facts: Mapping[str, Any]) -> Tensor:
    """Rows of one group (one caption) belong together; a row without one is a group of its own."""
    codes = np.array(pc.fill_null(labels.combine_chunks().dictionary_encode().indices, -1), np.int64)
    alone = codes < 0
    codes[alone] = codes.max(initial=-1) + 1 + np.arange(alone.sum())
    return torch.from_numpy(codes)


class Align(nn.Module):
    """Brings inputs into one space: a tower an input, a contrastive loss a pair of inputs.

    `loss` is infonce (CLIP, Radford et al. 2021) or siglip (Zhai et al. 2023); `fusemix` is the parameter of the
    Beta distribution of FuseMix (Vouitsis et al. 2024, arXiv 2312.10144), 0 for none: both sides of a pair are mixed
    with those of another pair, with the same share.
    """

    main = "mean R@10"
    learn, encode = staticmethod(_learn_nothing), staticmethod(_encode_groups)

    def __init__(
        self,
        context: Context,
        between: Sequence[str],
        loss: str = "infonce",
        dim: int = 128,
        layers: int = 0,
        fusemix: float = 1.0,
    ) -> None:
        super().__init__()
        self.between, self.fusemix = sorted(between), fusemix
        self.towers = nn.ModuleDict(
            {name: losses.Tower(context.dim, dim, layers, context.dropout) for name in self.between}
        )
        self.contrast = losses.CONTRASTS[loss]()

    def loss(self, state: State, target: Tensor) -> Tensor:
        total = state.fused.sum() * 0
        for one, other in combinations(self.between, 2):
            rows = torch.nonzero(state.present[one] & state.present[other])[:, 0]
            if len(rows) < 2:
                continue
            x, y, group = state.pooled(one)[rows], state.pooled(other)[rows], target[rows]
            if self.fusemix:
                x, y, group = losses.fusemix(x, y, self.fusemix)
            total = total + self.contrast(self.towers[one](x), self.towers[other](y), group)
        return total / len(list(combinations(self.between, 2)))

    def outputs(self, state: State) -> dict[str, Tensor]:
        found = {name: self.towers[name](state.pooled(name)) for name in self.between}
        # a row that lacks an input has no place in the space
        return {name: torch.where(state.present[name][:, None], found[name], torch.nan) for name in self.between}

    def scores(self, outputs: Outputs, target: NDArray[Any]) -> dict[str, float]:
        return metrics.alignment({name: outputs[name] for name in self.between}, target)

    def columns(self, outputs: Outputs) -> dict[str, pa.Array]:
        return {}


class Match(nn.Module):
    """Whether two inputs belong together: true pairs against pairs mixed within the batch, on the fused state."""

    main = "auroc"
    learn, encode = staticmethod(_learn_nothing), staticmethod(_encode_groups)

    def __init__(self, context: Context, between: Sequence[str]) -> None:
        super().__init__()
        self.first, self.second = between
        self.out = nn.Linear(context.dim, 1)

    def _mixed(self, state: State, partner: Tensor) -> Tensor:
        tokens, mask = state.parts[self.second]
        parts = state.parts | {self.second: (tokens[partner], mask[partner])}
        return self.out(state.fuse(parts, state.present))[:, 0]  # type: ignore[no-any-return]

    def loss(self, state: State, target: Tensor) -> Tensor:
        both = state.present[self.first] & state.present[self.second]
        partner = torch.randperm(len(target), device=target.device)
        right = self._mixed(state, torch.arange(len(target), device=target.device))
        wrong = self._mixed(state, partner)
        usable = both & both[partner] & (target != target[partner])
        truth = torch.cat([torch.where(both, 1.0, torch.nan), torch.where(usable, 0.0, torch.nan)])
        return losses.masked_bce(torch.cat([right, wrong]), truth)

    def outputs(self, state: State) -> dict[str, Tensor]:
        count = len(state.fused)
        own = torch.arange(count, device=state.fused.device)
        return {"probability": self._mixed(state, own).sigmoid(), "mixed": self._mixed(state, own.roll(1)).sigmoid()}

    def scores(self, outputs: Outputs, target: NDArray[Any]) -> dict[str, float]:
        return metrics.separation(outputs["probability"], outputs["mixed"])

    def columns(self, outputs: Outputs) -> dict[str, pa.Array]:
        return {"probability": pa.array(outputs["probability"])}


class Reconstruct(nn.Module):
    """The joint loss: alpha ||v - M_v(z)||^2 for each input v, where z is the fused state and M_v a decoder.

    Targets are standardised and carry no gradient, the square is averaged over dimensions (so each term is 1 - R2),
    and only rows that have the input count. What modality dropout takes away is reconstructed from the others.
    """

    main = "r2"
    learn, encode = staticmethod(_learn_nothing), staticmethod(_encode_groups)

    def __init__(self, context: Context, alpha: Mapping[str, float]) -> None:
        super().__init__()
        unknown = sorted(alpha.keys() - context.inputs.keys())
        if unknown:
            raise ConfigError(f"alpha names {', '.join(unknown)}; the inputs are {', '.join(context.inputs)}")
        self.alpha = {name: weight for name, weight in sorted(alpha.items()) if weight}
        self.decoders = nn.ModuleDict(
            {
                name: nn.Sequential(
                    nn.Linear(context.dim, context.dim), nn.GELU(), nn.Linear(context.dim, context.inputs[name])
                )
                for name in self.alpha
            }
        )

    def loss(self, state: State, target: Tensor) -> Tensor:
        total = state.fused.sum() * 0
        for name, weight in self.alpha.items():
            error = (self.decoders[name](state.fused) - state.standard[name].detach()) ** 2
            total = total + weight * losses.masked_mean(error.mean(1), state.present[name])
        return total

    def outputs(self, state: State) -> dict[str, Tensor]:
        """Squared error and squared length of each row: with all inputs, and without the one that is rebuilt."""
        found = {}
        for name in self.alpha:
            wanted, there = state.standard[name], state.present[name]
            without = state.fuse(state.parts, state.present | {name: torch.zeros_like(there)})
            for how, fused in (("all", state.fused), ("others", without)):
                error = ((self.decoders[name](fused) - wanted) ** 2).sum(1)
                found[f"{name} {how}"] = torch.where(there, error, torch.nan)
            found[f"{name} length"] = torch.where(there, (wanted**2).sum(1), torch.nan)
        return found

    def scores(self, outputs: Outputs, target: NDArray[Any]) -> dict[str, float]:
        found: dict[str, float] = {}
        for name in self.alpha:
            length = float(np.nansum(outputs[f"{name} length"]))
            found |= {
                f"r2 {name} from {how}": 1 - float(np.nansum(outputs[f"{name} {how}"])) / max(length, 1e-9)
                for how in ("all", "others")
            }
        return {"r2": float(np.mean([value for key, value in found.items() if key.endswith("all")])), **found}

    def columns(self, outputs: Outputs) -> dict[str, pa.Array]:
        return {}


TASKS: dict[str, Any] = {
    "multiclass": Multiclass,
    "multilabel": Multilabel,
    "regression": Regression,
    "align": Align,
    "match": Match,
    "reconstruct": Reconstruct,
}
