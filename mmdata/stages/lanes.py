"""Batches on their way through the encoders: formed by length, halved when memory runs out."""

import time
from collections.abc import Callable, Iterable, Sequence, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from sys import getsizeof
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdata.crash import point
from mmdata.encoders import Encoder, Prepared, TokenEncoder, failed
from mmdata.errors import ModelError
from mmdata.stages import Clock
from mmdata.types import EncoderCard

SORTED = 32  # batches that are sorted by length together
WAITING_BYTES = 64 << 20  # of inputs that wait to be sorted


@dataclass(slots=True)
class Lanes:
    """Threads that encode, one batch each: two on a GPU, one a core on a CPU. `batch_sizes` go by feature set."""

    pool: ThreadPoolExecutor
    count: int
    batch_sizes: dict[str, int]


@dataclass(frozen=True, slots=True)
class Unit:
    """An input and where it belongs: the row of its sample in the sample table, and its window."""

    row: int
    window: int
    ready: Prepared


@dataclass(frozen=True, slots=True)
class Encoded:
    """Units with their vectors `(n, dim) float32` and, where asked for, n arrays of token vectors.

    `too_large` are the rows of those that do not fit the device's memory even alone; their vectors are NaN.
    """

    units: Sequence[Unit]
    vectors: NDArray[np.float32]
    tokens: list[NDArray[np.floating]]
    too_large: frozenset[int] = frozenset()


@dataclass(slots=True)
class Line:
    """The units of one shard for one encoder: those that wait, those under way, those that are done.

    `watched` says of rows that they are in work, as long as its context lasts. After the first `error` no unit is
    taken any more, and `finish` raises it: the other encoders of the shard go on meanwhile.
    """

    encoder: Encoder
    lanes: Lanes
    watched: Callable[[Iterable[int]], AbstractContextManager[None]] = lambda rows: nullcontext()
    waiting: list[Unit] = field(default_factory=list)
    bytes: int = 0  # of what waits
    flying: list[Future[list[Encoded]]] = field(default_factory=list)
    done: list[Encoded] = field(default_factory=list)
    error: ModelError | None = None
    clock: Clock = field(default_factory=Clock)

    def put(self, unit: Unit) -> None:
        """Let a unit wait, and send batches off when enough of them do."""
        if self.error is not None:
            return
        self.waiting.append(unit)
        self.bytes += nbytes(unit.ready.data)
        together = SORTED if unit.ready.length else 1  # where all are equally long there is nothing to sort
        enough = together * self.lanes.batch_sizes[self.encoder.card.name]
        if len(self.waiting) >= enough or self.bytes >= WAITING_BYTES:
            self.send()

    def send(self) -> None:
        """Send what waits to the lanes in batches of similar length, the longest first."""
        waiting = sorted(self.waiting, key=lambda unit: unit.ready.length, reverse=True)
        self.waiting, self.bytes = [], 0
        while waiting:
            size = self.lanes.batch_sizes[self.encoder.card.name]  # a lane may have halved it meanwhile
            batch, waiting = waiting[:size], waiting[size:]
            self.flying.append(self.lanes.pool.submit(self._encode, batch))
            self._collect(leave=self.lanes.count)

    def _encode(self, batch: list[Unit]) -> list[Encoded]:
        with self.watched(unit.row for unit in batch):
            return _encode(self.lanes, self.encoder, batch, self.clock)

    def finish(self) -> list[Encoded]:
        """Everything encoded, in no order. Raises ModelError when the encoder failed over anything."""
        self.send()
        self._collect(leave=0)
        if self.error is not None:
            raise self.error
        return self.done

    def _collect(self, leave: int) -> None:
        since = time.perf_counter()
        while len(self.flying) > leave:
            try:
                self.done += self.flying.pop(0).result()
            except ModelError as error:
                self.error = self.error or error
        self.clock.add("encode_wait", since)


def nbytes(data: Any) -> int:
    """Bytes of a model input: an array, a tensor, a list of token ids, several by name, or anything else."""
    if isinstance(data, dict):
        return sum(nbytes(value) for value in data.values())
    if hasattr(data, "nbytes"):
        return int(data.nbytes)
    return 8 * len(data) if isinstance(data, Sized) else getsizeof(data)


def _encode(lanes: Lanes, encoder: Encoder, batch: list[Unit], clock: Clock) -> list[Encoded]:
    """When memory runs out: in halves, and in batches of that size from then on."""
    point("extract.batch")
    since = time.perf_counter()
    encoded = _try(encoder, batch)
    clock.add("encode", since)
    if encoded is not None:
        return [encoded]
    if len(batch) == 1:
        vector, tokens = np.full((1, encoder.card.dim), np.nan, np.float32), np.zeros((0, encoder.card.token_dim))
        return [Encoded(batch, vector, [tokens], frozenset([batch[0].row]))]
    half, name = len(batch) // 2, encoder.card.name
    lanes.batch_sizes[name] = min(half, lanes.batch_sizes[name])
    return _encode(lanes, encoder, batch[:half], clock) + _encode(lanes, encoder, batch[half:], clock)


def _try(encoder: Encoder, batch: list[Unit]) -> Encoded | None:
    """None when memory runs out; only after the return are the tensors that the error holds given back."""
    import torch

    try:
        return _given(encoder, batch)
    except (torch.OutOfMemoryError, MemoryError):
        return None
    except (Exception, SystemExit) as error:
        if isinstance(error, RuntimeError) and "allocate memory" in str(error):  # torch on a CPU, and ONNX Runtime
            return None
        raise failed(encoder.card.spec, f"failed over {len(batch)} inputs", error) from error


def _given(encoder: Encoder, batch: list[Unit]) -> Encoded:
    card, inputs = encoder.card, [unit.ready.data for unit in batch]
    if not card.tokens:
        vectors = encoder.encode(inputs)
        _check(card, len(batch), vectors)
        return Encoded(batch, vectors, [])
    if not isinstance(encoder, TokenEncoder):
        raise ModelError(f"{card.spec} gives no token vectors; leave --tokens out")
    given: Any = encoder.encode_tokens(inputs)
    if not isinstance(given, tuple) or len(given) != 2:
        raise ModelError(f"{card.spec}: encode_tokens gave {_kind(given)}; vectors and a list of arrays are due")
    vectors, tokens = given
    _check(card, len(batch), vectors)
    _check_tokens(card, len(batch), tokens)
    with np.errstate(over="ignore"):
        return Encoded(batch, vectors, [shorten(sequence, card.tokens).astype(card.dtype) for sequence in tokens])


def _check(card: EncoderCard, count: int, vectors: Any) -> None:
    if not isinstance(vectors, np.ndarray):
        due = f"floats (n, dim) as a numpy array are due, not {_kind(vectors)}"
        raise ModelError(f"{card.spec} over {count} inputs of dim {card.dim}: {due}")
    if vectors.shape != (count, card.dim) or vectors.dtype.kind != "f":
        found = f"{vectors.shape} {vectors.dtype}"
        raise ModelError(f"{card.spec} gave {found} for {count} inputs of dim {card.dim}; floats (n, dim) are due")


def _check_tokens(card: EncoderCard, count: int, tokens: Any) -> None:
    due = f"{count} numpy arrays of floats (length, {card.token_dim}) are due"
    if not isinstance(tokens, Sequence | np.ndarray) or len(tokens) != count:
        raise ModelError(f"{card.spec}: encode_tokens gave {_kind(tokens)} for tokens; {due}")
    for one in tokens:
        if not isinstance(one, np.ndarray) or one.dtype.kind != "f" or one.shape != (len(one), card.token_dim):
            raise ModelError(f"{card.spec}: encode_tokens gave {_kind(one)} among its tokens; {due}")


def _kind(value: Any) -> str:
    """What something is, for a message: an array's shape and type, anything else's class."""
    return f"{value.shape} {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__


def shorten(sequence: NDArray[np.floating], most: int) -> NDArray[np.floating]:
    """`(length, dim)` to at most `most` rows: the means of stretches that differ in length by one at most."""
    if len(sequence) <= most:
        return sequence
    bounds = np.arange(most) * len(sequence) // most
    sizes = np.diff(bounds, append=len(sequence))[:, None]
    sums = np.add.reduceat(sequence, bounds, axis=0, dtype=np.float32)  # in float16 they would overflow
    means: NDArray[np.floating] = sums / sizes
    return means
