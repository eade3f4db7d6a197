"""The indexes of a dataset, kept open; a newer generation takes the place of the old one."""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Generic, TypeVar

from mmdata.errors import MMDataError, NotFound
from mmdata.retrieval.generation import index_names
from mmdata.retrieval.query import Models
from mmdata.retrieval.search import Index
from mmdata.storage.dataset import Dataset, index_folder

log = logging.getLogger(__name__)
Made = TypeVar("Made")
Opened = tuple[str, Index]
"""The version of the label that an index was opened by, and the index."""


class Shelf:
    """Every index there is, over models that are loaded once. Who holds an older generation goes on with it."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self._models = Models()
        self._there: Mapping[str, Opened] = {}
        self.refresh()

    def refresh(self) -> None:
        """Open what is new or has changed, and let go of what is gone. What cannot be opened stays as it was."""
        found = {}
        for name in index_names(self.dataset):
            label = self.dataset.store.info(f"{index_folder(name)}/index.json")
            there = self._there.get(name)
            if label is not None and (there is None or there[0] != label.version):
                there = self._open(name, label.version) or there
            if there is not None:
                found[name] = there
        self._there = found

    def _open(self, name: str, version: str) -> Opened | None:
        try:
            return version, Index(self.dataset, name, self._models)
        except MMDataError as error:
            log.error("the index %r cannot be opened: %s", name, error)
            return None

    def __iter__(self) -> Iterator[Index]:
        return (index for _, index in self._there.values())

    def __getitem__(self, name: str) -> Index:
        """An open index. NotFound, naming those there are, when there is none."""
        there = self._there
        if name not in there:
            raise NotFound(f"there is no index {name!r}; there are: {', '.join(there) or 'none yet: run mmdata index'}")
        return there[name][1]


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
