"""One question to one or several indexes: a query, several with weights, or a file of vectors."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmdata.errors import ConfigError, NotFound
from mmdata.retrieval.fold import Fold
from mmdata.retrieval.generation import index_names
from mmdata.retrieval.results import Results
from mmdata.retrieval.search import Index
from mmdata.retrieval.vector_index import Floats
from mmdata.storage.dataset import Dataset
from mmdata.types import Modality

WEIGHTED = re.compile(r"(.+)::([+-]?(?:\d+(?:\.\d+)?|\.\d+))", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Term:
    """One thing that is asked for: `how` is a modality or "key"; a negative weight is "less like this"."""

    how: str
    value: str | Path
    weight: float = 1.0

    @classmethod
    def of(cls, how: str, value: str | Path) -> "Term":
        """`value`, which may end with its weight: "people::-0.5"."""
        match = WEIGHTED.fullmatch(str(value))
        if match is None:
            return cls(how, value)
        return cls(how, Path(match[1]) if isinstance(value, Path) else match[1], float(match[2]))

    def vector(self, index: Index, encoder: str | None) -> Floats:
        """`(1, dim)` in the space of an index."""
        if self.how == "key":
            return index.vector_of(str(self.value))
        return index.encode(Modality(self.how), self._data(), encoder)

    def _data(self) -> str | bytes:
        if isinstance(self.value, str):
            return self.value
        try:
            return self.value.read_bytes()
        except OSError as error:
            raise ConfigError(f"{self.value} cannot be read: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked for: terms that become one vector, or a file of vectors, each a query."""

    terms: tuple[Term, ...] = ()
    file: Path | None = None

    @classmethod
    def of(cls, vectors: Path | None = None, **given: str | Path | Sequence[str | Path] | None) -> "Query":
        """The query of what is not None. ConfigError when nothing is asked, or vectors and something else."""
        terms = tuple(Term.of(how, value) for how, values in given.items() for value in _each(values))
        if bool(terms) == bool(vectors):
            raise ConfigError(f"ask for --{', --'.join(given)} (several are added up), or for --vectors")
        return cls(terms, vectors)

    def __str__(self) -> str:
        if self.file is not None:
            return str(self.file)
        said = [f"{term.value}" if term.weight == 1 else f"{term.weight:g} x {term.value}" for term in self.terms]
        return " + ".join(said)

    def vectors(self, index: Index, encoder: str | None) -> Floats:
        """`(n, dim)` in the space of an index."""
        if self.file is not None:
            return index.read_queries(self.file)
        return index.combine([(term.vector(index, encoder), term.weight) for term in self.terms])


def _each(values: str | Path | Sequence[str | Path] | None) -> Sequence[str | Path]:
    if values is None:
        return ()
    return (values,) if isinstance(values, str | Path) else values


@dataclass(frozen=True, slots=True)
class Narrowed:
    """Which hits count, and how many: see `Index.search`."""

    k: int = 10
    where: Sequence[str] = ()
    at_least: float | None = None
    fold: Fold | None = None

    def search(self, index: Index, queries: Floats) -> Results:
        """The hits of `(n, dim)` queries."""
        return index.search(queries, self.k, self.where, at_least=self.at_least, fold=self.fold)


@dataclass(frozen=True, slots=True)
class Answer:
    """The hits of each query vector in one index, which holds vectors of `modality`."""

    index: str
    modality: Modality
    hits: Results


def fold_named(name: str | None) -> Fold | None:
    """Raises ConfigError for a name that is none."""
    if name is not None and name not in [*Fold]:
        raise ConfigError(f"--fold {name}: there are: {', '.join(Fold)}")
    return Fold(name) if name else None


def opened(dataset: Dataset, names: Sequence[str]) -> list[Index]:
    """The named indexes, or the only one there is. NotFound when that is not one."""
    there = index_names(dataset)
    if not names and len(there) != 1:
        raise NotFound(f"{dataset.url} has {len(there)} indexes; say which with --index: {', '.join(there) or 'none'}")
    return [Index(dataset, name) for name in names or there]


def ask(
    dataset: Dataset, names: Sequence[str], query: Query, narrowed: Narrowed = Narrowed(), encoder: str | None = None
) -> list[Answer]:
    """The answers of the named indexes, or of the only one there is."""
    return [
        Answer(index.facts.name, index.card.modality, narrowed.search(index, query.vectors(index, encoder)))
        for index in opened(dataset, names)
    ]
