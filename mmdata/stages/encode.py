"""One shard through the encoders: read, decode, prepare, batch by length, encode, write."""

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmdata.cluster import Resources
from mmdata.encoders import Encoder, Prepared, load_encoder
from mmdata.errors import ModelError
from mmdata.media import decode
from mmdata.stages import Clock, ordered_map
from mmdata.storage.dataset import Dataset, features_folder
from mmdata.storage.features import features_file, same_rows
from mmdata.storage.receipts import commit, rejects_file, tally
from mmdata.storage.shards import member_name, metadata_names, read_parts, read_sample_table
from mmdata.types import EncoderCard, Modality, Outcome, Reason, Receipt, Reject, Rejected

WINDOW = 8  # batches that are sorted by length together


@dataclass(frozen=True, slots=True)
class Work:
    """What a worker has to know: the shards by name, and which encoders are missing for each."""

    dataset: Dataset
    cards: list[EncoderCard]
    shards: dict[str, Receipt]
    missing: dict[str, tuple[EncoderCard, ...]]
    batch_size: int | None


@dataclass(slots=True)
class _State:
    work: Work
    encoders: list[Encoder]
    batch_sizes: dict[str, int]
    decoders: ThreadPoolExecutor
    lanes: ThreadPoolExecutor  # batches encoded at once: one on a GPU, one a core on a CPU
    lane_count: int


def setup(work: Work, resources: Resources, threads: int) -> _State:
    """Load every encoder, once a worker."""
    from mmdata.encoders.device import configure, pick_device

    configure()
    device = pick_device(resources.gpus)
    encoders = [load_encoder(card, device) for card in work.cards]
    sizes = {encoder.card.name: work.batch_size or encoder.batch_size for encoder in encoders}
    lanes = threads if device == "cpu" else 1
    pools = ThreadPoolExecutor(threads), ThreadPoolExecutor(lanes, initializer=configure)
    return _State(work, encoders, sizes, *pools, lanes)


@dataclass(slots=True)
class _Rows:
    """What one encoder has made of a shard so far."""

    encoder: Encoder
    waiting: list[tuple[int, Prepared]] = field(default_factory=list)
    flying: list[tuple[list[int], Future[NDArray[np.float32]]]] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)  # rows of the sample table
    vectors: list[NDArray[np.float32]] = field(default_factory=list)
    clock: Clock = field(default_factory=Clock)
    notes: list[Reject] = field(default_factory=list)
    rows_in: int = 0


def encode_shard(state: _State, name: str) -> list[Receipt]:
    """The features of one shard for every encoder that has none of it yet; each sample is decoded once."""
    clock, counters = Clock(), {"parts_read": 0, "parts_decoded": 0}
    shard = state.work.shards[name]
    samples = read_sample_table(state.work.dataset, shard)
    about = samples.select(["id", "key", "source"]).to_pylist()
    wanted = {card.name for card in state.work.missing[name]}
    outputs = [_Rows(encoder) for encoder in state.encoders if encoder.card.name in wanted]
    modalities = {rows.encoder.card.modality for rows in outputs}
    parts = _timed(read_parts(state.work.dataset, name, samples, modalities), clock, counters)
    prepare = partial(_prepare, outputs, clock)
    ahead = 2 * max(state.batch_sizes.values())
    for row, prepared in ordered_map(state.decoders, prepare, parts, ahead):
        counters["parts_decoded"] += len({rows.encoder.card.modality for rows, _ in prepared})
        for rows, ready in prepared:
            _take(state, rows, about[row], row, ready)
    share = 1 / len(outputs)  # of reading and decoding, which the encoders have in common
    receipt = Receipt(
        stage="extract",
        shard=name,
        fingerprint="",
        inputs=shard.content,
        outputs={},
        rows_in=0,
        rows_out=0,
        absent=0,
        rejected={},
        repaired={},
        seconds={phase: seconds * share for phase, seconds in clock.seconds.items()},
        counters=counters,
    )
    return [_commit(state, samples, about, rows, receipt) for rows in outputs]


def _timed(parts: Iterator[Any], clock: Clock, counters: dict[str, int]) -> Iterator[Any]:
    since = time.perf_counter()
    for row, found in parts:
        clock.add("read", since)
        counters["parts_read"] += len(found)
        yield row, found
        since = time.perf_counter()


def _prepare(
    outputs: list[_Rows], clock: Clock, item: tuple[int, dict[Modality, memoryview]]
) -> tuple[int, list[tuple[_Rows, Prepared | Rejected]]]:
    """Decode the parts of one sample, each once, and prepare them for every encoder."""
    row, parts = item
    since = time.perf_counter()
    prepared: list[tuple[_Rows, Prepared | Rejected]] = []
    for modality, data in parts.items():
        mine = [rows for rows in outputs if rows.encoder.card.modality is modality]
        try:
            decoded = decode(modality, data)
            for rows in mine:
                ready = rows.encoder.prepare(decoded.value)
                prepared.append((rows, replace(ready, repairs=decoded.repairs + ready.repairs)))
        except Rejected as problem:
            prepared += [(rows, problem) for rows in mine]
    clock.add("decode", since)
    return row, prepared


def _take(state: _State, rows: _Rows, about: dict[str, Any], row: int, ready: Prepared | Rejected) -> None:
    rows.rows_in += 1
    if isinstance(ready, Rejected):
        rows.notes.append(_note(rows, about, Outcome.REJECTED, ready.reason, ready.message))
        return
    rows.notes += [
        _note(rows, about, Outcome.REPAIRED, reason, "cut to what the encoder takes") for reason in ready.repairs
    ]
    rows.waiting.append((row, ready))
    if len(rows.waiting) >= WINDOW * state.batch_sizes[rows.encoder.card.name]:
        _encode_waiting(state, rows)


def _note(rows: _Rows, about: dict[str, Any], outcome: Outcome, reason: Reason, message: str) -> Reject:
    return Reject(about["id"], about["key"], about["source"], rows.encoder.card.modality, outcome, reason, message)


def _encode_waiting(state: _State, rows: _Rows) -> None:
    """Send what waits to the lanes, in batches of similar length, and collect what came before."""
    waiting, rows.waiting = sorted(rows.waiting, key=lambda item: item[1].length), []
    size = state.batch_sizes[rows.encoder.card.name]
    for start in range(0, len(waiting), size):
        batch = waiting[start : start + size]
        data = [ready.data for _, ready in batch]
        rows.flying.append(([row for row, _ in batch], state.lanes.submit(_encode, state, rows, data)))
        _collect(rows, state.lane_count)


def _collect(rows: _Rows, leave: int) -> None:
    """Take finished batches until at most `leave` are under way."""
    since = time.perf_counter()
    while len(rows.flying) > leave:
        numbers, vectors = rows.flying.pop(0)
        rows.vectors.append(vectors.result())
        rows.numbers += numbers
    rows.clock.add("wait", since)


def _encode(state: _State, rows: _Rows, batch: list[Any]) -> NDArray[np.float32]:
    """`(n, dim)`; when memory runs out, in halves, and in batches of that size from then on."""
    import torch

    since = time.perf_counter()
    encoder = rows.encoder
    try:
        vectors = encoder.encode(batch)
    except torch.OutOfMemoryError:
        if len(batch) == 1:
            return np.full((1, encoder.card.dim), np.nan, np.float32)
        half = len(batch) // 2
        state.batch_sizes[encoder.card.name] = half
        return np.concatenate([_encode(state, rows, batch[:half]), _encode(state, rows, batch[half:])])
    rows.clock.add("encode", since)
    if vectors.shape != (len(batch), encoder.card.dim):
        raise ModelError(f"{encoder.card.spec} gave {vectors.shape} for {len(batch)} samples of dim {encoder.card.dim}")
    return vectors


def _commit(state: _State, samples: pa.Table, about: list[dict[str, Any]], rows: _Rows, common: Receipt) -> Receipt:
    _encode_waiting(state, rows)
    _collect(rows, 0)
    since = time.perf_counter()
    card = rows.encoder.card
    numbers, vectors = _sound(rows, about)
    suffixes = samples[f"{card.modality}_suffix"].to_pylist()
    columns = samples.select(["id", "key", "caption", *metadata_names(samples)]).take(pa.array(numbers, pa.int64()))
    members = [member_name(about[row]["id"], suffixes[row]) for row in numbers]
    data = features_file(card, columns.add_column(2, "member", pa.array(members, pa.string())), vectors)
    notes = sorted(rows.notes, key=lambda note: note.id)
    rows.clock.add("write", since)
    receipt = replace(
        common,
        fingerprint=card.fingerprint,
        rows_in=rows.rows_in,
        rows_out=len(numbers),
        absent=samples.num_rows - rows.rows_in,
        rejected=tally(notes, Outcome.REJECTED),
        repaired=tally(notes, Outcome.REPAIRED),
        seconds=common.seconds | rows.clock.seconds,
        versions=card.versions,
    )
    return commit(
        state.work.dataset.store,
        features_folder(card.name),
        receipt,
        {"parquet": data} | rejects_file(notes),
        adopt=lambda suffix, found: suffix == "parquet" and same_rows(card, found, data),
    )


def _sound(rows: _Rows, about: list[dict[str, Any]]) -> tuple[list[int], NDArray[np.floating]]:
    """Rows in order with their vectors as stored; rows whose vector is no number or no direction are rejects."""
    card = rows.encoder.card
    order = np.argsort(rows.numbers, kind="stable")
    raw = np.concatenate([*rows.vectors, np.zeros((0, card.dim), np.float32)])[order]
    with np.errstate(over="ignore"):
        vectors = raw.astype(card.dtype)
    finite = np.isfinite(vectors).all(axis=1)
    nonzero = (vectors != 0).any(axis=1)
    numbers = [rows.numbers[i] for i in order]
    if len(numbers) > 1 and not finite.any():
        raise ModelError(f"{card.spec} gave no finite vector in a whole shard; try --precision fp32 or bf16")
    for row, is_finite, is_nonzero in zip(numbers, finite, nonzero, strict=True):
        if not is_finite:
            rows.notes.append(_left_out(rows, about[row], Reason.NONFINITE_OUTPUT))
        elif not is_nonzero:
            rows.notes.append(_left_out(rows, about[row], Reason.ZERO_NORM))
    keep = finite & nonzero
    return [row for row, kept in zip(numbers, keep, strict=True) if kept], vectors[keep]


def _left_out(rows: _Rows, about: dict[str, Any], reason: Reason) -> Reject:
    return _note(rows, about, Outcome.REJECTED, reason, f"{rows.encoder.card.spec} gave no usable vector")
