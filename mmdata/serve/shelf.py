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


class Shelf:
    """Every index there is, over models that are loaded once. Who holds an older generation goes on with it."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self._models = Models()
        self._versions: Mapping[str, str] = {}
        self._indexes: Mapping[str, Index] = {}
        self.refresh()

    def refresh(self) -> None:
        """Open what is new or has changed, and let go of what is gone. What cannot be opened stays as it was."""
        labels = {name: self.dataset.store.info(f"{index_folder(name)}/index.json") for name in self._names()}
        versions = {name: info.version for name, info in labels.items() if info is not None}
        if versions == self._versions:
            return
        found = {}
        for name, version in versions.items():
            same = self._versions.get(name) == version
            index = self._indexes[name] if same and name in self._indexes else self._open(name)
            if index is not None:
                found[name] = index
        self._indexes, self._versions = found, versions

    def _names(self) -> list[str]:
        return index_names(self.dataset)

    def _open(self, name: str) -> Index | None:
        try:
            return Index(self.dataset, name, self._models)
        except MMDataError as error:
            log.error("the index %r cannot be opened: %s", name, error)
            return self._indexes.get(name)

    def __iter__(self) -> Iterator[Index]:
        return iter(self._indexes.values())

    def __getitem__(self, name: str) -> Index:
        """An open index. NotFound, naming those there are, when there is none."""
        index = self._indexes.get(name)
        if index is None:
            there = ", ".join(self._indexes) or "none yet; run mmdata index"
            raise NotFound(f"there is no index {name!r}; there are: {there}")
        return index


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
