"""Recall against exact search, for each modality of query on its own, and the search parameters that reach it."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mmdata.retrieval.kinds import KINDS
from mmdata.retrieval.vector_index import Floats, Ids, VectorIndex

AT = (1, 10, 100)
TUNED_AT = 10
MARGIN = 0.01  # above the recall that was asked, since other queries are asked later; two standard errors at 500
MOST_EF = 1024
TIE = 1e-5  # of a score: two kernels add the same numbers in different order
QUERIES = 500
EXACT_WORK = 1e13  # multiplications that exact answers may cost: minutes on two cores


@dataclass(frozen=True, slots=True)
class Probe:
    """Queries of one modality, `ready`, with the scores of their exact answers `(n, k)`, best first.

    Where the queries are rows of the index themselves, `own` are their numbers, and they are no answers.
    """

    modality: str
    queries: Floats
    own: Ids | None
    truth: Floats


def how_many(rows: int, dim: int) -> int:
    """Queries that can be answered exactly in bounded time."""
    return int(min(QUERIES, max(50, EXACT_WORK / (max(rows, 1) * dim))))


def probe(index: VectorIndex, modality: str, queries: Floats, own: Ids | None = None) -> Probe:
    """Answer queries exactly."""
    most = min(max(AT), index.rows - (own is not None))
    return Probe(modality, queries, own, _others(index.exact(queries, most + (own is not None)), own)[0])


def own_probe(index: VectorIndex, modality: str, wanted: int, seed: int) -> Probe:
    """Rows of the index as queries; each is left out of its own answers."""
    there = np.arange(index.base.ntotal) if index.alive is None else np.flatnonzero(index.alive)
    own = np.random.default_rng(seed).choice(there, min(wanted, len(there)), replace=False)
    return probe(index, modality, index.stored(own), own)


def _others(found: tuple[Floats, Ids], own: Ids | None) -> tuple[Floats, Ids]:
    if own is None:
        return found
    scores, ids = found
    order = np.argsort(ids == own[:, None], axis=1, kind="stable")[:, :-1]
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(ids, order, axis=1)


def recall(index: VectorIndex, asked: Probe, k: int, parameters: Mapping[str, int]) -> float:
    """The share of the k nearest that a search for k finds, by score: of equal rows any will do."""
    k = min(k, asked.truth.shape[1])
    if k == 0 or not len(asked.queries):
        return 1.0
    extra = asked.own is not None
    scores, _ = _others(index.search(asked.queries, k + extra, parameters), asked.own)
    bar = asked.truth[:, k - 1 : k]
    return float((scores >= bar - TIE * np.abs(bar)).mean())


def recalls(index: VectorIndex, probes: Sequence[Probe], parameters: Mapping[str, int]) -> dict[str, dict[str, float]]:
    """Modality to recall at 1, 10 and 100."""
    return {p.modality: {str(k): round(recall(index, p, k, parameters), 4) for k in AT} for p in probes}


def worst(found: Mapping[str, Mapping[str, float]]) -> float:
    """The recall at 10 of the modality that has the lowest."""
    return min((at[str(TUNED_AT)] for at in found.values()), default=1.0)


@dataclass(frozen=True, slots=True)
class Tuned:
    """Search parameters and the recall at 10 they reach, in the modality that has the lowest."""

    parameters: dict[str, int]
    recall: float


def tune(index: VectorIndex, kind: str, probes: Sequence[Probe], min_recall: float) -> Tuned:
    """The cheapest parameters that reach `min_recall` with a margin; the most thorough ones where none do."""
    target = min(1.0, min_recall + MARGIN) if min_recall < 1 else 1.0

    def reached(parameters: dict[str, int]) -> float:
        return min((recall(index, p, TUNED_AT, parameters) for p in probes), default=1.0)

    if not KINDS[kind].knob:
        return Tuned({}, reached({}))
    best = Tuned({}, -1.0)
    for rerank in KINDS[kind].rerank or (0,):
        settings = _settings(index, kind, rerank)
        most = Tuned(settings[-1], reached(settings[-1]))
        if most.recall >= target:
            chosen = settings[bisect_left(settings[:-1], target, key=reached)]
            return Tuned(chosen, reached(chosen))
        best = max(best, most, key=lambda tuned: tuned.recall)
    return best


def _settings(index: VectorIndex, kind: str, rerank: int) -> list[dict[str, int]]:
    """Every step of the knob, the cheapest first: half a power of two apart."""
    limit = index.lists or MOST_EF
    first = 1 if index.lists else 16
    steps = sorted({round(2 ** (n / 2)) for n in range(2 * limit.bit_length())} | {limit})
    fixed = ({"nlist": index.lists} if index.lists else {}) | ({"rerank": rerank} if rerank else {})
    return [fixed | {KINDS[kind].knob: step} for step in steps if first <= step <= limit]
