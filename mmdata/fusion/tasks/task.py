"""What every task is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmdata.fusion.operators import Tokens, mean_token

Outputs = dict[str, NDArray[np.floating]]
Resampled = tuple[Callable[[NDArray[np.int64]], float], int]


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

    def resampled(self, outputs: Outputs, target: NDArray[Any]) -> Resampled:
        """The main figure as a function of drawn rows, and how many rows it draws from."""

    def columns(self, outputs: Outputs) -> dict[str, pa.Array]:
        """What `mmdata predict` writes."""


def of_drawn_rows(
    scores: Callable[[Outputs, NDArray[Any]], dict[str, float]], main: str, outputs: Outputs, target: NDArray[Any]
) -> Resampled:
    labelled = np.flatnonzero(
        target >= 0 if target.dtype.kind == "i" else ~np.isnan(target).reshape(len(target), -1).any(1)
    )

    def score(drawn: NDArray[np.int64]) -> float:
        rows = labelled[drawn]
        return scores({name: one[rows] for name, one in outputs.items()}, target[rows]).get(main, np.nan)

    return score, len(labelled)


def of_means(values: NDArray[np.floating]) -> Resampled:
    """Of tasks whose figure is the mean of one number a row."""
    return lambda drawn: float(values[drawn].mean()), len(values)


def learn_nothing(labels: pa.ChunkedArray) -> dict[str, Any]:
    """For tasks that take nothing from labels."""
    return {}


def encode_groups(labels: pa.ChunkedArray, facts: Mapping[str, Any]) -> Tensor:
    """Rows of one group (one caption) belong together; a row without one is a group of its own."""
    codes = np.array(pc.fill_null(labels.combine_chunks().dictionary_encode().indices, -1), np.int64)
    alone = codes < 0
    codes[alone] = codes.max(initial=-1) + 1 + np.arange(alone.sum())
    return torch.from_numpy(codes)
