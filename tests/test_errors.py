"""The tree of errors: each has its exit code, and a conflict shows both sides."""

import pickle

import pytest

from mmdata import errors
from mmdata.errors import (
    ConfigError,
    Conflict,
    Damage,
    MMDataError,
    ModelError,
    NotFound,
    StorageError,
    StorageFull,
    TooManyRejects,
    WorkerDied,
    conflict,
)
from mmdata.types import Reason

CODES = {
    MMDataError: 1,
    ConfigError: 2,
    TooManyRejects: 3,
    StorageError: 4,
    NotFound: 4,
    StorageFull: 4,
    WorkerDied: 4,
    ModelError: 5,
    Conflict: 6,
    Damage: 7,
}


@pytest.mark.parametrize(("kind", "code"), CODES.items())
def test_every_error_has_its_exit_code(kind, code):
    assert kind.exit_code == code
    assert issubclass(kind, MMDataError)


def test_the_table_above_and_the_drawing_in_the_docstring_are_complete():
    defined = {value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)}
    assert defined == set(CODES)
    assert {kind.__name__ for kind in CODES if kind.__name__ in errors.__doc__} == {kind.__name__ for kind in CODES}


@pytest.mark.parametrize("kind", CODES)
def test_every_error_travels_between_processes(kind):
    error = pickle.loads(pickle.dumps(kind("what, why, and what to type next")))
    assert (type(error), str(error)) == (kind, "what, why, and what to type next")


def test_a_conflict_lists_the_differing_fields_side_by_side():
    error = conflict("x", {"a": 1, "b": 2, "c": 3}, {"a": 1, "b": "two", "d": None}, "do this")
    assert str(error) == "\n".join(
        ["x was made from something else:", "  b: there 2, asked 'two'", "  c: there 3, asked None", "do this"]
    )


def test_a_conflict_says_which_field_of_a_field_differs_and_values_as_they_are_written():
    error = conflict("x", {"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": Reason.OOM}}, "do this")
    assert str(error) == "x was made from something else:\n  a.c: there 2, asked 'oom'\ndo this"
