"""Filters on metadata: `field=value` and its kin, typed by the column, never pasted into a query language."""

import re
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmdata.errors import ConfigError

FILTER = re.compile(r"\s*([^\s<>=!~]+)\s*(!=|<=|>=|=|<|>|~)\s*(.*)", re.DOTALL)
OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "=": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}


def select(rows: pa.Table, filters: Sequence[str]) -> NDArray[np.int64] | None:
    """Numbers of the rows that pass every filter, or None when there is no filter.

    `~` is "contains". A row without the field passes no filter. Raises ConfigError for a filter that is none,
    a field that there is not, or a value that is not of the field's type.
    """
    if not filters:
        return None
    mask = np.ones(rows.num_rows, bool)
    for text in filters:
        passed = _apply(rows, text)
        mask &= np.asarray(pc.fill_null(passed, False).to_numpy(zero_copy_only=False), bool)
    return np.flatnonzero(mask)


def _apply(rows: pa.Table, text: str) -> Any:
    match = FILTER.fullmatch(text)
    if match is None:
        raise ConfigError(f"--where {text!r}: write FIELD=VALUE, with one of = != < <= > >= ~")
    name, operator, value = match.groups()
    if name not in rows.column_names:
        near = get_close_matches(name, rows.column_names, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(rows.column_names)}"
        raise ConfigError(f"--where {text!r}: no field {name!r}; {hint}")
    column = rows[name].combine_chunks()
    if operator == "~":
        return pc.match_substring(column.cast(pa.string()), value)
    try:
        return OPERATORS[operator](column, pa.scalar(value).cast(column.type))
    except pa.ArrowException as error:
        raise ConfigError(f"--where {text!r}: {name} is {column.type}, and {value!r} is not") from error
