"""Rows drawn from all shards of a feature set alike: to learn from, and to ask with."""

import numpy as np

from mmdata.errors import NotFound
from mmdata.retrieval.metric import ready, unusable
from mmdata.retrieval.vector_index import Floats
from mmdata.storage.dataset import Dataset
from mmdata.storage.features import Features, vectors
from mmdata.types import EncoderCard


def draw(features: Features, wanted: int, metric: str, seed: int) -> Floats:
    """`(n, dim)` vectors, `ready`, n <= `wanted`, in random order; every row is as likely as any other.

    Only shards that a row is drawn from are read, one at a time. Rows that cannot be indexed are left out.
    """
    rng = np.random.default_rng(seed)
    total = sum(receipt.rows_out for receipt in features.receipts.values())
    numbers = np.sort(rng.choice(total, min(wanted, total), replace=False))
    drawn = np.empty((len(numbers), features.card.dim), np.float32)  # at once: the sample may be half of what there is
    first = good = 0
    for receipt in features.receipts.values():
        here = numbers[(numbers >= first) & (numbers < first + receipt.rows_out)] - first
        if len(here):
            rows = vectors(features.read(receipt, ["embedding"]))[here]
            usable = ready(rows[~np.logical_or.reduce(list(unusable(rows).values()))], metric)
            drawn[good : good + len(usable)] = usable
            good += len(usable)
        first += receipt.rows_out
    rng.shuffle(drawn[:good])
    return drawn[:good]


def sibling_queries(dataset: Dataset, card: EncoderCard, wanted: int, metric: str, seed: int) -> dict[str, Floats]:
    """Queries of other modalities: rows of the feature sets in the space of `card`, by modality."""
    drawn = {modality: draw(sibling, wanted, metric, seed) for modality, sibling in _siblings(dataset, card).items()}
    return {modality: rows for modality, rows in drawn.items() if len(rows)}


def _siblings(dataset: Dataset, card: EncoderCard) -> dict[str, Features]:
    found: dict[str, Features] = {}
    for name in dataset.names("features"):
        try:
            other = Features(dataset, name)
        except NotFound:  # an extraction that was killed before it wrote its card
            continue
        if other.card.space == card.space and other.card.modality is not card.modality:
            found.setdefault(other.card.modality.value, other)
    return found
