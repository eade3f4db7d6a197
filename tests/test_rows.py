"""Rows of an index by their numbers, over record batches of any size."""

import numpy as np
import pyarrow as pa
import pytest

from mmdata.retrieval.rows import take

SIZES = (3, 0, 4, 1)


@pytest.fixture
def rows() -> pa.Table:
    pieces = np.split(np.arange(8), np.cumsum(SIZES)[:-1])
    return pa.concat_tables(
        [pa.table({"n": piece, "word": [f"w{n}" for n in piece]}) for piece in pieces if len(piece)]
    )


@pytest.mark.parametrize("numbers", [[7, 0, 3, 3, 2, 6, 0], [5], list(range(8)), list(range(7, -1, -1))])
def test_rows_come_in_the_order_of_their_numbers(rows: pa.Table, numbers: list[int]) -> None:
    found = take(rows, np.array(numbers))
    assert found.to_pydict() == {"n": numbers, "word": [f"w{n}" for n in numbers]}


def test_no_numbers_are_no_rows_of_the_same_columns(rows: pa.Table) -> None:
    assert take(rows, np.array([], np.int64)).to_pydict() == {"n": [], "word": []}
    assert take(rows.slice(0, 0), np.array([], np.int64)).schema == rows.schema
