"""Filters on metadata: `field=value` and its kin, typed by the column, never pasted into a query language."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmdata.errors import ConfigError

FILTER = re.compile(r"\s*([^<>=!~]+?)\s*(!=|<=|>=|=(?![=<>])|<|>|~)\s*(.*)", re.DOTALL)
DECIMAL = re.compile(r"\s*[+-]?\d*\.\d+\s*")
OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "=": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}


@dataclass(frozen=True, slots=True)
class Filter:
    """A condition on a field; `operator` is one of `OPERATORS`, or `~` for "contains"."""

    field: str
    operator: str
    value: str | float | bool

    @classmethod
    def parse(cls, text: str) -> "Filter":
        """`FIELD=VALUE` and its kin. ConfigError for what is none."""
        match = FILTER.fullmatch(text)
        if match is None:
            raise ConfigError(f"where {text!r}: write FIELD=VALUE, with one of = != < <= > >= ~")
        return cls(*match.groups())

    def __str__(self) -> str:
        return f"{self.field}{self.operator}{self.value}"


def select(rows: pa.Table, filters: Sequence[str | Filter]) -> NDArray[np.int64] | None:
    """Numbers of the rows that pass every filter, or None when there is no filter.

    A row without the field passes no filter. Raises ConfigError for a filter that is none, a field that there is
    not, or a value that is not of the field's type.
    """
    if not filters:
        return None
    mask = np.ones(rows.num_rows, bool)
    for given in filters:
        passed = _apply(rows, Filter.parse(given) if isinstance(given, str) else given)
        mask &= np.asarray(pc.fill_null(passed, False).to_numpy(zero_copy_only=False), bool)
    return np.flatnonzero(mask)


def _apply(rows: pa.Table, asked: Filter) -> Any:
    if asked.field not in rows.column_names:
        near = get_close_matches(asked.field, rows.column_names, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(rows.column_names)}"
        raise ConfigError(f"where {str(asked)!r}: no field {asked.field!r}; {hint}")
    column = rows[asked.field].combine_chunks()
    try:
        if asked.operator == "~":
            return pc.match_substring(column.cast(pa.string()), str(asked.value))
        return OPERATORS[asked.operator](column, _scalar(asked.value, column.type))
    except (pa.ArrowException, OverflowError) as error:
        raise ConfigError(
            f"where {str(asked)!r}: {asked.field} is {column.type}, and {asked.value!r} is not"
        ) from error


def _scalar(value: str | float | bool, kind: pa.DataType) -> Any:
    """A value as one of a column; a whole number is one in a column of whole numbers, 2.5 stays what it is.

    A bool is no number, and a number no bool. ArrowInvalid for a value that cannot be one of the column.
    """
    if not isinstance(value, str) and isinstance(value, bool) != pa.types.is_boolean(kind):
        raise pa.ArrowInvalid(f"{value} is of another type")
    if pa.types.is_integer(kind) and (
        isinstance(value, float) or (isinstance(value, str) and DECIMAL.fullmatch(value))
    ):
        return pa.scalar(float(value))
    return pa.scalar(value).cast(kind)
