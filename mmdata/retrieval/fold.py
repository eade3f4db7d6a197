"""Hits that are shown as one: of those that are alike only the best counts."""

from enum import StrEnum

import numpy as np
import pyarrow as pa

from mmdata.retrieval.metric import ready
from mmdata.retrieval.rows import take
from mmdata.retrieval.vector_index import Floats, Ids, VectorIndex

ALIKE = 0.995  # cosine of two hits that are shown as one
BLOCK = 1024  # rows whose vectors are compared at once


class Fold(StrEnum):
    """Which hits are shown as one, the best of them."""

    SAMPLE = "sample"  # the windows of a sample
    DUPLICATES = "duplicates"  # those too, and hits whose vectors are almost equal


class Kept:
    """The first k rows of one query that are like none before them; more rows may be offered until it has k.

    n rows that were offered cost n * k comparisons at most, however many times they were offered.
    """

    def __init__(self, index: VectorIndex, rows: pa.Table, k: int, fold: Fold) -> None:
        self._index, self._rows, self._k, self._fold = index, rows.select(["id"]), k, fold
        self._start_again()

    def _start_again(self) -> None:
        self.places: list[int] = []  # of the rows that are kept, among those that were offered
        self._seen: Ids = np.zeros(0, np.int64)
        self._samples: Ids = np.zeros(0, np.int64)

    def __len__(self) -> int:
        return len(self.places)

    def offer(self, ids: Ids) -> None:
        """All rows that are known now, best first; those that were offered before are not looked at again.

        A wider search of an approximate index may find better rows: then what was kept is chosen anew.
        """
        if not np.array_equal(ids[: len(self._seen)], self._seen):
            self._start_again()
        first, self._seen = len(self._seen), ids
        samples = np.asarray(take(self._rows, ids[first:])["id"])
        new, places = np.unique(samples, return_index=True)
        places = np.sort(places[~np.isin(new, self._samples)]) + first
        self._samples = np.union1d(self._samples, new)
        if self._fold is Fold.SAMPLE:
            self.places += places[: self._k - len(self)].tolist()
            return
        for start in range(0, len(places), BLOCK):
            if len(self) < self._k:
                self._differ(places[start : start + BLOCK])

    def _differ(self, places: Ids) -> None:
        """Keep those, best first, whose vectors are like none that is kept."""
        unit = self._unit(places)
        left = ~(unit @ self._unit(np.array(self.places, np.int64)).T >= ALIKE).any(axis=1)
        while left.any() and len(self) < self._k:
            best = int(left.argmax())
            self.places.append(int(places[best]))
            left &= unit @ unit[best] < ALIKE
            left[best] = False  # a vector of zeros is not even like itself

    def _unit(self, places: Ids) -> Floats:
        return ready(self._index.stored(self._seen[places]), "cosine")
