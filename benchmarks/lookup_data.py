"""Vectors for the benchmark of the lookup: clustered or uniform pictures, and texts that lie beside them."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmdata.storage.dataset import Dataset, features_folder
from mmdata.storage.features import claim, features_file
from mmdata.storage.receipts import commit
from mmdata.types import EncoderCard, Modality, Receipt

Floats = NDArray[np.float32]
ROWS = 50_000  # of a shard
QUERIES = 5_000  # texts
CARD = EncoderCard(Modality.IMAGE, 0, spec="made:image", dtype="float16", precision="fp32", space="made", revision="1")


def clustered(rows: int, dim: int, rng: np.random.Generator) -> Floats:
    """Rows about one centre in 500 of them, drawn in 32 dimensions that are turned into `dim`."""
    shape = np.random.default_rng(7)
    turn = shape.normal(size=(32, dim)).astype(np.float32) / 6
    centres = shape.normal(size=(2000, 32)).astype(np.float32)
    inner = centres[rng.integers(0, 2000, rows)] + 0.5 * rng.normal(size=(rows, 32)).astype(np.float32)
    return inner @ turn + 0.05 * rng.normal(size=(rows, dim)).astype(np.float32)


def uniform(rows: int, dim: int, rng: np.random.Generator) -> Floats:
    """Rows evenly about a sphere of 16 dimensions that is turned into `dim`: no clusters anywhere."""
    turn = np.random.default_rng(7).normal(size=(16, dim)).astype(np.float32)
    return rng.normal(size=(rows, 16)).astype(np.float32) @ turn + 0.05 * rng.normal(size=(rows, dim)).astype(
        np.float32
    )


SHAPES: dict[str, Callable[[int, int, np.random.Generator], Floats]] = {"clustered": clustered, "uniform": uniform}


def texts(pictures: Floats, rng: np.random.Generator) -> Floats:
    """Queries as texts are: each near a picture, all moved to one side, as CLIP moves them."""
    gap = np.random.default_rng(8).normal(size=pictures.shape[1]).astype(np.float32)
    unit = pictures / np.linalg.norm(pictures, axis=1, keepdims=True)
    noise = rng.normal(size=unit.shape).astype(np.float32) / np.sqrt(unit.shape[1])
    return unit + 0.6 * gap / np.linalg.norm(gap) + 0.4 * noise


def write(folder: Path, shape: str, rows: int, dim: int) -> Dataset:
    """A dataset with the features `image` and `text`, or the one that is there."""
    dataset = Dataset.create(str(folder))
    rng = np.random.default_rng(rows)
    _write(dataset, "image", Modality.IMAGE, _pieces(SHAPES[shape], rows, dim, rng), dim)
    asked = texts(SHAPES[shape](QUERIES, dim, rng), rng)
    _write(dataset, "text", Modality.TEXT, iter([asked]), dim)
    return dataset


def _pieces(
    shape: Callable[[int, int, np.random.Generator], Floats], rows: int, dim: int, rng: np.random.Generator
) -> Iterator[Floats]:
    for first in range(0, rows, ROWS):
        yield shape(min(ROWS, rows - first), dim, rng)


def _write(dataset: Dataset, name: str, modality: Modality, pieces: Iterator[Floats], dim: int) -> None:
    card = replace(CARD, name=name, modality=modality, dim=dim)
    claim(dataset, card, overwrite=False)
    first = 0
    for number, vectors in enumerate(pieces):
        ids = np.arange(first, first + len(vectors))
        columns = {"id": ids, "key": [f"k{i}" for i in ids], "member": [""] * len(ids)}
        columns |= {"caption": [f"row {i}" for i in ids], "group": ids % 10}
        table = pa.table({column: pa.array(values) for column, values in columns.items()})
        receipt = Receipt(
            "extract", f"{number:06d}", card.fingerprint, {}, {}, len(ids), len(ids), 0, {}, {}, {}, {}, {}
        )
        commit(dataset.store, features_folder(name), receipt, {"parquet": features_file(card, table, vectors)})
        first += len(ids)
