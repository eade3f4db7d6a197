"""Feature sets of a few rows, made of numbers that a test can check."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmdata.fusion.pack import Input, Pack
from mmdata.storage.dataset import Dataset
from mmdata.storage.features import Features
from mmdata.storage.imported import import_vectors
from mmdata.types import EncoderCard, Modality


def vectors_of(
    folder: Path,
    name: str,
    values: NDArray[np.floating],
    keys: Sequence[str] | None = None,
    modality: Modality = Modality.IMAGE,
    tokens: Sequence[NDArray[np.floating]] | None = None,
    **columns: Any,
) -> Features:
    """A feature set of `values` (n, dim) below `folder`; keys are k00000, k00001 ... unless given."""
    keys = keys or [f"k{row:05d}" for row in range(len(values))]
    return import_vectors(Dataset.create(str(folder)), name, modality, keys, values, columns, tokens)


def memory_pack(
    views: Mapping[str, NDArray[np.floating]], absent: Mapping[str, NDArray[np.bool_]] | None = None
) -> Pack:
    """A pack in memory; rows in `absent` lack the view."""
    rows = len(next(iter(views.values())))
    inputs = {}
    for name, values in views.items():
        gone = (absent or {}).get(name, np.zeros(rows, bool))
        card = EncoderCard(Modality.IMAGE, values.shape[1], name, space=name)
        inputs[name] = Input(card, False, values.astype(np.float32), np.arange(rows), (~gone).astype(np.int64))
    return Pack("", pa.table({"key": [str(row) for row in range(rows)]}), inputs)


def views_of(folder: Path, views: Mapping[str, NDArray[np.floating]], **columns: Any) -> Dataset:
    """A dataset with one feature set a view, all of the same rows."""
    for name, values in views.items():
        vectors_of(folder, name, values.astype(np.float32), **columns)
    return Dataset.open(str(folder))
