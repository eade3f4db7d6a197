"""Which rows are for training, which choose the epoch, and which are left for the report."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from hashlib import sha256

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmdata.errors import ConfigError


class Part(StrEnum):
    """One side of a split."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


NAMES = {
    **{"train": Part.TRAIN, "training": Part.TRAIN, "test": Part.TEST},
    **dict.fromkeys(("validation", "valid", "val", "dev"), Part.VALIDATION),
}
"""What a split column may call the parts."""

Parts = dict[Part, NDArray[np.int64]]
"""The rows of each part, ascending."""


def hash_share(text: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    return int(sha256(text.encode()).hexdigest()[:12], 16) / 16**12


def split_by_hash(groups: Sequence[str], shares: Mapping[Part, float], seed: int) -> Parts:
    """About the asked share of the groups in each part, the rest in train: equal groups are on one side."""
    names, inverse = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)
    at = np.array([hash_share(f"{seed}:split:{name}") for name in names])[inverse]
    test, validation = shares.get(Part.TEST, 0.0), shares.get(Part.VALIDATION, 0.0)
    part = np.select([at < test, at < test + validation], [Part.TEST, Part.VALIDATION], Part.TRAIN)
    return {one: np.flatnonzero(part == one) for one in Part}


def split_by_column(values: Sequence[str | None], column: str) -> Parts:
    """The parts that a column names; rows without a value are in none. ConfigError for a name that is no part."""
    odd = sorted({str(value) for value in values if value is not None} - NAMES.keys())
    if odd:
        raise ConfigError(f"the split column {column!r} holds {', '.join(odd)}; parts are called {', '.join(NAMES)}")
    part = np.array([None if value is None else NAMES[value] for value in values], dtype=object)
    return {one: np.flatnonzero(part == one) for one in Part}


def check_apart(parts: Parts, column: str, values: pa.ChunkedArray) -> None:
    """ConfigError when two parts share a value of `column`: what is learned by heart would count as understood."""
    unique = {part: pc.drop_null(pc.unique(values.take(pa.array(rows)))) for part, rows in parts.items()}
    for one, other in ((Part.TRAIN, Part.TEST), (Part.VALIDATION, Part.TEST), (Part.TRAIN, Part.VALIDATION)):
        both = unique[one].filter(pc.is_in(unique[one], unique[other]))
        if len(both):
            raise ConfigError(
                f"{len(both)} values of {column!r} are in both {one} and {other}, as {both[0].as_py()!r}; split by "
                f"group: {column}, or leave {column!r} out of split.apart if that is meant"
            )
