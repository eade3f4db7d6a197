"""The indexes of a dataset, kept open; a newer generation takes the place of the old one."""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from mmdata.errors import Damage, MMDataError, NotFound
from mmdata.retrieval.generation import index_names
from mmdata.retrieval.query import Models
from mmdata.retrieval.search import Index
from mmdata.storage.dataset import Dataset, index_folder

log = logging.getLogger(__name__)
Made = TypeVar("Made")
LONGEST = 128  # looks between two tries to open what could not be opened


@dataclass(frozen=True, slots=True)
class Opened:
    """The version of the label that an index was opened by, and the index."""

    version: str
    index: Index


@dataclass(frozen=True, slots=True)
class Broken:
    """Why an index could not be opened by a version of its label, and the look at which it is tried again."""

    version: str
    reason: str
    pause: int
    again: int


class Shelf:
    """Every index there is, over models that are loaded once. Who holds an older generation goes on with it."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self._models = Models()
        self._there: Mapping[str, Opened] = {}
        self._broken: Mapping[str, Broken] = {}
        self._looks = 0
        self.refresh()

    def refresh(self) -> None:
        """Open what is new or has changed, and let go of what is gone. What cannot be opened stays as it was.

        It is tried again when its label has changed, and else after pauses that grow.
        """
        self._looks += 1
        there: dict[str, Opened] = {}
        broken: dict[str, Broken] = {}
        for name in index_names(self.dataset):
            opened, problem = self._look(name, self._there.get(name), self._broken.get(name))
            if opened:
                there[name] = opened
            if problem:
                broken[name] = problem
        self._there, self._broken = there, broken

    def _look(self, name: str, there: Opened | None, broken: Broken | None) -> tuple[Opened | None, Broken | None]:
        label = self.dataset.store.info(f"{index_folder(name)}/index.json")
        version = label.version if label else ""
        if there and there.version == version:
            return there, None
        if broken and broken.version == version and self._looks < broken.again:
            return there, broken
        try:
            opened = Opened(version, Index(self.dataset, name, self._models))
        except (MMDataError, OSError) as error:
            return there, self._failed(name, version, str(error), broken)
        if broken:
            log.warning("the index %r can be opened again", name)
        return opened, None

    def _failed(self, name: str, version: str, reason: str, before: Broken | None) -> Broken:
        if before and (before.version, before.reason) == (version, reason):
            pause = min(2 * before.pause, LONGEST)
        else:
            log.error("the index %r cannot be opened: %s", name, reason)
            pause = 1
        return Broken(version, reason, pause, self._looks + pause)

    def __iter__(self) -> Iterator[Index]:
        return (opened.index for opened in self._there.values())

    def __getitem__(self, name: str) -> Index:
        """An open index. Damage when it cannot be opened; NotFound, naming those there are, when there is none."""
        there, broken = self._there, self._broken
        if name in there:
            return there[name].index
        if name in broken:
            raise Damage(f"the index {name!r} cannot be opened: {broken[name].reason}")
        raise NotFound(f"there is no index {name!r}; there are: {', '.join(there) or 'none yet: run mmdata index'}")

    @property
    def problems(self) -> dict[str, str]:
        """Name to reason of every index whose label cannot be opened; of some an older generation is in use."""
        return {name: broken.reason for name, broken in self._broken.items()}


class Latest(Generic[Made]):
    """What is made of an index, once a generation."""

    def __init__(self, make: Callable[[Index], Made]) -> None:
        self._make = make
        self._made: dict[str, tuple[Index, Made]] = {}
        self._lock = threading.Lock()

    def __call__(self, index: Index) -> Made:
        """Of this index, made now if it is a new one; who asks meanwhile waits."""
        with self._lock:
            there = self._made.get(index.facts.name)
            if there is None or there[0] is not index:
                there = self._made[index.facts.name] = index, self._make(index)
            return there[1]
