"""One question to one or several indexes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmdata.errors import ConfigError, NotFound
from mmdata.retrieval.search import Index
from mmdata.storage.dataset import Dataset
from mmdata.types import Hit, Modality


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked for: `how` is a modality, "key" or "vectors"."""

    how: str
    value: str | Path

    @classmethod
    def of(cls, **given: str | Path | None) -> "Query":
        """The one query that is not None. ConfigError when there is none, or more than one."""
        asked = [(how, value) for how, value in given.items() if value is not None]
        if len(asked) != 1:
            raise ConfigError(f"ask one thing: --{' or --'.join(given)}")
        return cls(*asked[0])

    def vectors(self, index: Index, encoder: str | None) -> NDArray[np.float32]:
        """`(n, dim)` in the space of an index."""
        if self.how == "key":
            return index.vector_of(str(self.value))
        if self.how == "vectors":
            return index.read_queries(self.value)
        return index.encode(Modality(self.how), self._data(), encoder)

    def _data(self) -> str | bytes:
        if isinstance(self.value, str):
            return self.value
        try:
            return self.value.read_bytes()
        except OSError as error:
            raise ConfigError(f"{self.value} cannot be read: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class Answer:
    """The hits of each query vector in one index, which holds vectors of `modality`."""

    index: str
    modality: Modality
    hits: list[list[Hit]]


def ask(
    dataset: Dataset, indexes: Sequence[str], query: Query, k: int, where: Sequence[str], encoder: str | None
) -> list[Answer]:
    """The answers of the named indexes, or of the only one there is."""
    there = dataset.names("indexes")
    if not indexes and len(there) != 1:
        raise NotFound(f"{dataset.url} has {len(there)} indexes; say which with --index: {', '.join(there) or 'none'}")
    opened = [Index(dataset, name) for name in indexes or there]
    return [
        Answer(index.facts.name, index.card.modality, index.search(query.vectors(index, encoder), k, where))
        for index in opened
    ]
