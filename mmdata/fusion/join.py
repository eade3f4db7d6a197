"""Rows of several feature sets joined by key, without Python a row."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmdata.errors import ConfigError
from mmdata.storage.features import token_vectors, vectors
from mmdata.storage.tables import concat

TOKENS = "#tokens"
Places = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Where the vectors of each row start, and how many it has: none where it lacks the input."""


def vectors_of(table: pa.Table, name: str, tokens: bool) -> tuple[NDArray[np.floating], NDArray[np.int64]]:
    """Embeddings, or tokens, of a table as (items, dim), and how many each row has. ConfigError without tokens."""
    if not tokens:
        return vectors(table), np.ones(len(table), np.int64)
    if "tokens" not in table.column_names:
        raise ConfigError(f"features {name!r} have no tokens; extract them with --tokens, or leave {TOKENS!r} away")
    values, offsets = token_vectors(table)
    return values, np.diff(offsets).astype(np.int64)


def about_rows(table: pa.Table) -> pa.Table:
    """A features table without its vectors."""
    drop = [name for name in ("embedding", "tokens") if name in table.column_names]
    return table.drop_columns(drop).replace_schema_metadata(None)


def places_of(lengths: NDArray[np.int64], first: int = 0) -> Places:
    """The places of rows whose vectors lie one behind the other, from item `first`."""
    return first + np.cumsum(lengths) - lengths, lengths


def join(abouts: Mapping[str, pa.Table], places: Mapping[str, Places]) -> tuple[pa.Table, dict[str, Places]]:
    """The outer join by key, sorted by it: a row a key, and where each input of it is.

    Raises ConfigError when a key comes twice in one input.
    """
    for name, about in abouts.items():
        if len(pc.unique(about["key"])) != len(about):
            raise ConfigError(
                f"the features of input {name!r} have a key twice; rows join by key, so windows cannot be rows"
            )
    keys = pc.unique(pa.concat_arrays([about["key"].combine_chunks() for about in abouts.values()]))
    keys = keys.take(pc.sort_indices(keys))
    joined = {}
    for name, (starts, lengths) in places.items():
        found = pc.index_in(keys, abouts[name]["key"])
        row = np.array(pc.fill_null(found, len(starts)), np.int64)
        joined[name] = (np.append(starts, 0)[row], np.append(lengths, 0)[row])
    rows = concat(list(abouts.values()))
    return rows.take(pc.index_in(keys, rows["key"])), joined


def missing(rows: int) -> Places:
    """The places of an input that no row has."""
    return np.zeros(rows, np.int64), np.zeros(rows, np.int64)
