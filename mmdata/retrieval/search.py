"""One search for the command line, Python and HTTP: an index opened once, asked many times."""

from collections.abc import Sequence
from math import isfinite
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmdata.errors import ConfigError, NotFound
from mmdata.retrieval.fold import Fold, Kept
from mmdata.retrieval.generation import LocalFiles, read_facts
from mmdata.retrieval.metric import ready
from mmdata.retrieval.query import Models, QueryEncoder, read_vectors
from mmdata.retrieval.results import Results
from mmdata.retrieval.vector_index import Floats, Ids, Mask
from mmdata.retrieval.where import Filter, select
from mmdata.storage.dataset import Dataset
from mmdata.types import Modality

MORE = 4  # times k: how many rows are fetched first where some will be folded


class Index:
    """An open index. Safe to search from several threads; a newer generation does not change it."""

    def __init__(self, dataset: Dataset, name: str, models: Models | None = None) -> None:
        self.dataset = dataset
        self._models = models or Models()
        self.facts, self.card = read_facts(dataset, name)
        self._files = LocalFiles(dataset, self.facts)
        self.vector_index, self.rows = self._files.open(self.facts.metric, mapped=True)
        self._length = self.vector_index.rows
        self._encoders: dict[tuple[Modality, str | None], QueryEncoder] = {}

    def __len__(self) -> int:
        return self._length

    def encode(self, modality: Modality, query: str | bytes, encoder: str | None = None) -> Floats:
        """A text, or the bytes of a picture or a sound, to `(1, dim)` in the space of this index.

        Raises Conflict, naming both cards, when nothing takes this modality into the space.
        """
        return self.encoder(modality, encoder).encode(query.encode() if isinstance(query, str) else query)

    def encoder(self, modality: Modality, spec: str | None = None) -> QueryEncoder:
        """What takes queries of a modality into the space of this index, loaded once. Conflict when nothing does."""
        if (modality, spec) not in self._encoders:
            self._encoders[modality, spec] = QueryEncoder(self.dataset, self.card, modality, self._models, spec)
        return self._encoders[modality, spec]

    def vector_of(self, key: str) -> Floats:
        """The stored vector of a sample, `(1, dim)`; the mean of its windows. NotFound when the key is not there."""
        rows = np.flatnonzero(np.asarray(pc.fill_null(pc.equal(self.rows["key"], key), False), bool))
        if not len(rows):
            raise NotFound(f"the index {self.facts.name!r} has no sample {key!r}")
        mean: Floats = self.vector_index.stored(rows).mean(axis=0, keepdims=True)
        return mean

    def combine(self, terms: Sequence[tuple[Floats, float]]) -> Floats:
        """Queries `(1, dim)` with weights as one, `(1, dim)`: their weighted sum, of unit vectors under the cosine.

        Raises ConfigError for a weight of 0, and when nothing is left of them.
        """
        if not all(weight for _, weight in terms):
            raise ConfigError("a weight of 0 asks for nothing; leave that query out")
        total = sum(weight * ready(vector, self.facts.metric) for vector, weight in terms)
        whole = np.asarray(total, np.float32).reshape(1, self.card.dim)
        if len(terms) > 1 and not whole.any():
            raise ConfigError("the queries cancel each other out; change a weight")
        return whole

    def search(
        self,
        queries: NDArray[np.floating],
        k: int = 10,
        where: Sequence[str | Filter] = (),
        *,
        at_least: float | None = None,
        fold: Fold | None = None,
    ) -> Results:
        """The k nearest rows of each of `(n, dim)` queries, best first; fewer when there are fewer.

        A higher score is nearer: the cosine, the inner product, or minus the squared distance (l2). Hits below
        the score `at_least` are left out; of those that `fold` takes for one only the best counts. With a filter,
        every row that passes is searched.
        Raises ConfigError for k below one, a wrong filter, and queries that are not finite or not of `dim`.
        """
        prepared = self._prepared(queries, k)
        chosen = select(self.rows, where)
        allowed = None if chosen is None else _mask(chosen, len(self.rows))
        most = len(self) if chosen is None else len(chosen)
        if most == 0 or not len(prepared):
            return Results(*_nothing(len(prepared)), self.rows)
        if fold is None:
            scores, ids = self.vector_index.search(prepared, min(k, most), self.facts.parameters, allowed)
            counts = np.full(len(prepared), ids.shape[1])
        else:
            scores, ids, counts = self._folded(prepared, k, most, allowed, fold)
        if at_least is not None:
            counts = ((scores >= at_least) & (np.arange(scores.shape[1]) < counts[:, None])).sum(axis=1)
        return Results(scores, ids, counts, self.rows)

    def _prepared(self, queries: NDArray[np.floating], k: int) -> Floats:
        if k < 1:
            raise ConfigError(f"k is {k}; ask for one hit at least")
        if queries.ndim != 2 or queries.shape[1] != self.card.dim:
            raise ConfigError(f"queries of shape {queries.shape}: {self.facts.name!r} takes (n, {self.card.dim})")
        prepared = ready(queries, self.facts.metric)
        # one pass of BLAS first: a sum that is finite has no part that is not
        if not isfinite(np.vdot(prepared, prepared)) and not np.isfinite(prepared).all():
            raise ConfigError("a query has numbers that are not finite")
        return prepared

    def _folded(
        self, queries: Floats, k: int, most: int, allowed: Mask | None, fold: Fold
    ) -> tuple[Floats, Ids, NDArray[np.int64]]:
        """As a search, for more and more rows of the queries that need them, until each has k or all were seen."""
        width = min(k, most)
        best, ids = np.zeros((len(queries), width), np.float32), np.zeros((len(queries), width), np.int64)
        kept = [Kept(self.vector_index, self.rows, k, fold) for _ in queries]
        short, wanted = np.arange(len(queries)), min(most, MORE * k)
        while len(short):
            scores, found = self.vector_index.search(queries[short], wanted, self.facts.parameters, allowed)
            for place, query in enumerate(short):
                kept[query].offer(found[place])
                chosen = kept[query].places
                best[query, : len(chosen)], ids[query, : len(chosen)] = scores[place, chosen], found[place, chosen]
            short = short[[len(kept[query]) < k for query in short]] if wanted < most else short[:0]
            wanted = min(most, 2 * wanted)
        return best, ids, np.array([len(one) for one in kept])

    def read_queries(self, path: str | Path) -> Floats:
        """Query vectors from an .npy or Parquet file, `(n, dim)`."""
        return read_vectors(Path(path), self.card)


def _mask(chosen: Ids, rows: int) -> Mask:
    mask = np.zeros(rows, bool)
    mask[chosen] = True
    return mask


def _nothing(queries: int) -> tuple[Floats, Ids, Ids]:
    return np.zeros((queries, 0), np.float32), np.zeros((queries, 0), np.int64), np.zeros(queries, np.int64)


def open_index(dataset: str | Dataset, name: str) -> Index:
    """Open an index of a dataset. NotFound when there is none, Damage when a file is not what was written."""
    return Index(dataset if isinstance(dataset, Dataset) else Dataset.open(dataset), name)
