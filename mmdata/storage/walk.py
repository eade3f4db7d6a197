"""The files below a local folder, whatever their names: tabs, line ends and bytes that are no UTF-8 too."""

import os
from collections.abc import Iterator
from pathlib import Path


def walk(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Path below `folder` and facts of every file. Links are followed, and never round in a circle.

    A link that leads nowhere is listed as itself. Raises OSError for a folder that cannot be read.
    """
    status = folder.stat()
    yield from _walk(str(folder), "", {(status.st_dev, status.st_ino)})


def _walk(folder: str, prefix: str, above: set[tuple[int, int]]) -> Iterator[tuple[str, os.stat_result]]:
    with os.scandir(folder) as entries:
        found = list(entries)
    for entry in found:
        try:
            status = entry.stat()
        except OSError:
            status = entry.stat(follow_symlinks=False)
        if not entry.is_dir():
            yield prefix + entry.name, status
        elif (place := (status.st_dev, status.st_ino)) not in above:
            yield from _walk(entry.path, f"{prefix}{entry.name}/", above | {place})
