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

from collections.abc import Mapping


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
    names = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
    rows = [f"  {name}: there {found.get(name)!r}, asked {wanted.get(name)!r}" for name in names]
    return Conflict("\n".join([f"{what} was made from something else:", *rows, remedy]))
