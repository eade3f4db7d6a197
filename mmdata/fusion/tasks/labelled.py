"""Tasks with a label of their own: a class, several labels, a number. They read the fused state."""

from collections.abc import Mapping
from typing import Any

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
from mmdata.fusion.tasks.task import Context, Outputs, Resampled, State, of_drawn_rows, of_means


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
            only = f" ({classes[0]!r})" if classes else ""
            raise ConfigError(
                f"a multiclass task needs two classes at least; the training rows have {len(classes)}{only}"
            )
        if fraction := next((one for one in classes if isinstance(one, float) and not one.is_integer()), None):
            raise ConfigError(f"a number as {fraction:g} is no class; take the type regression")
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

    def resampled(self, outputs: Outputs, target: NDArray[Any]) -> Resampled:
        kept = target >= 0
        return of_means((outputs["probability"][kept].argmax(1) == target[kept]).astype(float))

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

    def resampled(self, outputs: Outputs, target: NDArray[Any]) -> Resampled:
        return of_drawn_rows(self.scores, self.main, outputs, target)

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
        raise ConfigError(f'a multilabel column holds lists, or lists as JSON, ["red", "round"]: {error}') from error
    if not all(row is None or isinstance(row, list) for row in rows):
        raise ConfigError('a multilabel column holds lists, or lists as JSON, ["red", "round"], not single values')
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
        return metrics.regression(outputs["value"], self.in_its_unit(target))

    def in_its_unit(self, target: NDArray[Any]) -> NDArray[Any]:
        """Standardised targets as they were."""
        return np.asarray(target * self.scale + self.mean)

    def resampled(self, outputs: Outputs, target: NDArray[Any]) -> Resampled:
        return of_drawn_rows(self.scores, self.main, outputs, target)

    def columns(self, outputs: Outputs) -> dict[str, pa.Array]:
        return {"": pa.array(outputs["value"])}


def _numbers(labels: pa.ChunkedArray) -> NDArray[np.float64]:
    try:
        return np.array(pc.fill_null(pc.cast(labels, pa.float64()), np.nan), np.float64)
    except pa.ArrowException as error:
        raise ConfigError(f"a regression column holds numbers: {error}") from error
