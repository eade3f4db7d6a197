"""Every error that mmdata raises on purpose.

    MMDataError              exit code 1
    |-- ConfigError          2  a flag, a file or a value that cannot be right
    |-- TooManyRejects       3  more samples left out than --max-reject-rate allows
    |-- StorageError         4  cannot read or write
    |   |-- NotFound            what was to be read is not there
    |   `-- StorageFull         no space left
    |-- WorkerDied           4  workers keep dying; the same command goes on
    |-- ModelError           5  an encoder that cannot be loaded or run
    |-- Conflict             6  what is there was made from other inputs, or in another vector space
    `-- Damage               7  bytes that are not what their receipt says

A message names the thing and the remedy, or both sides of a mismatch. A single bad sample is not an error of
the run: it is a `mmdata.types.Rejected`, which a stage turns into a counted row of the rejects report.
"""

import traceback
from collections.abc import Mapping
from enum import Enum


class MMDataError(Exception):
    """Root of the tree; `exit_code` is what the command line exits with."""

    exit_code = 1


class ConfigError(MMDataError):
    exit_code = 2


class TooManyRejects(MMDataError):
    exit_code = 3


class StorageError(MMDataError):
    exit_code = 4


class NotFound(StorageError):
    pass


class StorageFull(StorageError):
    pass


class WorkerDied(MMDataError):
    exit_code = 4


class ModelError(MMDataError):
    exit_code = 5


class Conflict(MMDataError):
    exit_code = 6


class Damage(MMDataError):
    exit_code = 7


def conflict(what: str, found: Mapping[str, object], wanted: Mapping[str, object], remedy: str) -> Conflict:
    """A `Conflict` whose message lists the differing fields side by side."""
    found, wanted = _flat(found), _flat(wanted)
    names = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
    rows = [f"  {name}: there {_plain(found.get(name))}, asked {_plain(wanted.get(name))}" for name in names]
    return Conflict("\n".join([f"{what} was made from something else:", *rows, remedy]))


def _flat(fields: Mapping[str, object]) -> dict[str, object]:
    """Fields of fields by `name.field`."""
    flat: dict[str, object] = {}
    for name, value in fields.items():
        inner = _flat(value) if isinstance(value, Mapping) else {}
        flat |= {f"{name}.{field}": one for field, one in inner.items()} if inner else {name: value}
    return flat


def _plain(value: object) -> str:
    return repr(value.value if isinstance(value, Enum) else value)


def told(error: BaseException) -> str:
    """An error of code that is not ours: its kind, what it says, and the file and line that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f", at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}: {error}{where}"
