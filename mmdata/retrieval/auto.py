"""Which kind of index: each is tried on a sample, and the fastest that meets recall and memory is taken."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mmdata.errors import ConfigError
from mmdata.retrieval.kinds import KINDS, Terms, bytes_for, trained
from mmdata.retrieval.measure import QUERIES, TUNED_AT, Probe, Tuned, probe, tune
from mmdata.retrieval.sample import draw, sibling_queries
from mmdata.retrieval.vector_index import Floats, VectorIndex
from mmdata.storage.features import Features

SAMPLE = 20_000  # rows that the kinds are tried on; up to so many, exact search takes about a millisecond
TIMED_BATCH = 16  # queries at once: fewer than what FAISS multiplies as one matrix, as from people and not from jobs
ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Trial:
    """What became of a kind: `recall` of its best parameters, `memory` bytes, predicted `seconds` of a query."""

    kind: str
    recall: float
    memory: int
    seconds: float = 0.0


def choose(features: Features, rows: int, metric: str, terms: Terms) -> list[str]:
    """The kinds that have the recall in the memory on a sample, the fastest first.

    Raises ConfigError, saying what would be enough, when there is none.
    """
    dim = features.card.dim
    fitting = [kind for kind in KINDS if bytes_for(kind, rows, dim) <= terms.memory]
    if rows <= SAMPLE and "flat" in fitting:
        return ["flat"]
    sample = draw(features, SAMPLE + QUERIES, metric, terms.seed)
    held_out, rest = sample[:QUERIES], sample[QUERIES:]
    queries = {features.card.modality.value: held_out}
    queries |= sibling_queries(features.dataset, features.card, QUERIES, metric, terms.seed)
    trials = []
    for kind in fitting:
        index = trained(kind, metric, features.card.dtype, len(rest), rest, terms.seed)
        index.add(rest)
        tuned, seconds = _try(index, kind, queries, terms.min_recall)
        predicted = seconds * KINDS[kind].grow(len(rest), rows)
        trials.append(Trial(kind, tuned.recall, bytes_for(kind, rows, dim), predicted))
    good = [trial for trial in trials if trial.recall >= terms.min_recall]
    if not good:
        raise unreachable(trials, rows, dim, terms)
    return [trial.kind for trial in sorted(good, key=lambda trial: trial.seconds)]


def _try(index: VectorIndex, kind: str, queries: Mapping[str, Floats], min_recall: float) -> tuple[Tuned, float]:
    probes = [probe(index, modality, asked) for modality, asked in queries.items()]
    tuned = tune(index, kind, probes, min_recall)
    return tuned, _seconds(index, probes, tuned)


def _seconds(index: VectorIndex, probes: Sequence[Probe], tuned: Tuned) -> float:
    """Of one query, in the quietest of some rounds."""
    rounds = []
    for _ in range(ROUNDS):
        since = time.perf_counter()
        for asked in probes:
            for start in range(0, len(asked.queries), TIMED_BATCH):
                batch = asked.queries[start : start + TIMED_BATCH]
                index.search(batch, min(TUNED_AT, index.rows), tuned.parameters)
        rounds.append(time.perf_counter() - since)
    return min(rounds) / sum(len(asked.queries) for asked in probes)


def unreachable(trials: Sequence[Trial], rows: int, dim: int, terms: Terms) -> ConfigError:
    """What was tried, what it would take, and what to ask instead."""
    tried = {trial.kind: trial for trial in trials}
    asked = f"recall@10 {terms.min_recall:g} in {_size(terms.memory)}"
    lines = [f"no index of {rows} vectors of {dim} numbers has {asked}:"]
    for kind in KINDS:
        needs = tried[kind].memory if kind in tried else bytes_for(kind, rows, dim)
        lines.append(f"  {kind}: {f'recall {tried[kind].recall:.3f}, ' if kind in tried else ''}needs {_size(needs)}")
    exact = f"--memory {_size(bytes_for('flat', rows, dim))} is enough for exact search"
    best = max(trials, key=lambda trial: trial.recall, default=None)
    lines.append(exact + (f", or ask for --min-recall {best.recall - 0.01:.2f}" if best else ""))
    return ConfigError("\n".join(lines))


def _size(count: int) -> str:
    unit, name = (1_000_000, "MB") if count >= 100_000_000 else (1000, "KB")
    return f"{-(-count // unit)}{name}"
