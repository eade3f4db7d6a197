"""Batches on their way through the encoders: formed by length, halved when memory runs out, put back in order."""

import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdata.encoders import Encoder, Prepared
from mmdata.errors import ModelError
from mmdata.stages import Clock
from mmdata.types import Outcome, Reason, Reject, Rejected

WINDOW = 8  # batches that are sorted by length together
Batch = list[tuple[int, Prepared]]


@dataclass(slots=True)
class Lanes:
    """Threads that encode, one batch each: one on a GPU, one a core on a CPU. `batch_sizes` go by feature set."""

    pool: ThreadPoolExecutor
    count: int
    batch_sizes: dict[str, int]


@dataclass(slots=True)
class Rows:
    """What one encoder has made of a shard so far; rows are numbered as in the sample table, `about`."""

    encoder: Encoder
    about: list[dict[str, Any]]
    waiting: Batch = field(default_factory=list)
    flying: list[tuple[list[int], Future[NDArray[np.float32]]]] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    vectors: list[NDArray[np.float32]] = field(default_factory=list)
    too_large: set[int] = field(default_factory=set)  # rows that do not fit the device's memory even alone
    clock: Clock = field(default_factory=Clock)
    notes: list[Reject] = field(default_factory=list)
    rows_in: int = 0

    def note(self, row: int, outcome: Outcome, reason: Reason, message: str) -> None:
        """Add a line to the rejects report."""
        about, part = self.about[row], self.encoder.card.modality
        self.notes.append(Reject(about["id"], about["key"], about["source"], part, outcome, reason, message))


def take(lanes: Lanes, rows: Rows, row: int, ready: Prepared | Rejected) -> None:
    """Count a sample, and send batches off when enough of them wait."""
    rows.rows_in += 1
    if isinstance(ready, Rejected):
        rows.note(row, Outcome.REJECTED, ready.reason, ready.message)
        return
    for reason in ready.repairs:
        rows.note(row, Outcome.REPAIRED, reason, "cut to what the encoder takes")
    rows.waiting.append((row, ready))
    window = WINDOW if ready.length else 1  # where all are equally long there is nothing to sort
    if len(rows.waiting) >= window * lanes.batch_sizes[rows.encoder.card.name]:
        _send(lanes, rows)


def finish(lanes: Lanes, rows: Rows) -> tuple[list[int], NDArray[np.floating]]:
    """Encode what still waits. Row numbers in order, and their vectors `(n, dim)` as they are stored.

    Rows whose vector is no number or has no direction are rejects. Raises ModelError when that is every row.
    """
    _send(lanes, rows)
    _collect(rows, 0)
    card = rows.encoder.card
    order = np.argsort(rows.numbers, kind="stable")
    raw = np.concatenate([*rows.vectors, np.zeros((0, card.dim), np.float32)])[order]
    with np.errstate(over="ignore"):
        vectors = raw.astype(card.dtype)
    finite = np.isfinite(vectors).all(axis=1)
    nonzero = (vectors != 0).any(axis=1)
    numbers = [rows.numbers[i] for i in order]
    if len(numbers) > 1 and not finite.any() and not rows.too_large:
        raise ModelError(f"{card.spec} gave no finite vector in a whole shard; try --precision fp32 or bf16")
    keep = finite & nonzero
    for row, is_finite in zip(np.array(numbers)[~keep].tolist(), finite[~keep], strict=True):
        reason = Reason.OOM if row in rows.too_large else Reason.ZERO_NORM if is_finite else Reason.NONFINITE_OUTPUT
        rows.note(row, Outcome.REJECTED, reason, f"{card.spec} gave no usable vector")
    return [row for row, kept in zip(numbers, keep, strict=True) if kept], vectors[keep]


def _send(lanes: Lanes, rows: Rows) -> None:
    """Send what waits to the lanes, in batches of similar length, and collect what came before."""
    waiting, rows.waiting = sorted(rows.waiting, key=lambda item: item[1].length), []
    while waiting:
        size = lanes.batch_sizes[rows.encoder.card.name]  # a lane may have halved it meanwhile
        batch, waiting = waiting[:size], waiting[size:]
        rows.flying.append(([row for row, _ in batch], lanes.pool.submit(_encode, lanes, rows, batch)))
        _collect(rows, lanes.count)


def _collect(rows: Rows, leave: int) -> None:
    """Take finished batches until at most `leave` are under way."""
    since = time.perf_counter()
    while len(rows.flying) > leave:
        numbers, vectors = rows.flying.pop(0)
        rows.vectors.append(vectors.result())
        rows.numbers += numbers
    rows.clock.add("wait", since)


def _encode(lanes: Lanes, rows: Rows, batch: Batch) -> NDArray[np.float32]:
    """`(n, dim)`; when memory runs out, in halves, and in batches of that size from then on."""
    since = time.perf_counter()
    card = rows.encoder.card
    vectors = _try(rows.encoder, batch)
    rows.clock.add("encode", since)
    if vectors is None and len(batch) == 1:
        rows.too_large.add(batch[0][0])
        return np.full((1, card.dim), np.nan, np.float32)
    if vectors is None:
        half = len(batch) // 2
        lanes.batch_sizes[card.name] = min(half, lanes.batch_sizes[card.name])
        return np.concatenate([_encode(lanes, rows, batch[:half]), _encode(lanes, rows, batch[half:])])
    if vectors.shape != (len(batch), card.dim):
        raise ModelError(f"{card.spec} gave {vectors.shape} for {len(batch)} samples of dim {card.dim}")
    return vectors


def _try(encoder: Encoder, batch: Batch) -> NDArray[np.float32] | None:
    """None when memory runs out; only after the return are the tensors that the error holds given back."""
    import torch

    try:
        return encoder.encode([ready.data for _, ready in batch])
    except torch.OutOfMemoryError:
        return None
