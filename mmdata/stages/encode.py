"""One shard through the encoders: read, decode, prepare, encode, write."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pyarrow as pa

from mmdata.cluster import Resources
from mmdata.encoders import Encoder, Prepared, load_encoder
from mmdata.media import Decoded, decode
from mmdata.stages import Clock, ordered_map
from mmdata.stages.lanes import Lanes, Rows, finish, take
from mmdata.storage.dataset import Dataset, features_folder
from mmdata.storage.features import features_file, same_rows
from mmdata.storage.receipts import commit, rejects_file, tally
from mmdata.storage.shards import member_name, metadata_names, read_parts, read_sample_table
from mmdata.types import EncoderCard, Modality, Outcome, Receipt, Rejected


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
    decoders: ThreadPoolExecutor
    lanes: Lanes


def setup(work: Work, resources: Resources, threads: int) -> _State:
    """Load every encoder, once a worker."""
    from mmdata.encoders.device import configure, pick_device

    configure()
    device = pick_device(resources.gpus)
    encoders = [load_encoder(card, device) for card in work.cards]
    sizes = {encoder.card.name: work.batch_size or encoder.batch_size for encoder in encoders}
    count = threads if device == "cpu" else 1
    lanes = Lanes(ThreadPoolExecutor(count, initializer=configure), count, sizes)
    return _State(work, encoders, ThreadPoolExecutor(threads), lanes)


def encode_shard(state: _State, name: str) -> list[Receipt]:
    """The features of one shard for every encoder that has none of it yet; each sample is decoded once."""
    clock, counters = Clock(), {"parts_read": 0, "parts_decoded": 0}
    shard = state.work.shards[name]
    samples = read_sample_table(state.work.dataset, shard)
    about = samples.select(["id", "key", "source"]).to_pylist()
    wanted = {card.name for card in state.work.missing[name]}
    outputs = [Rows(encoder, about) for encoder in state.encoders if encoder.card.name in wanted]
    modalities = {rows.encoder.card.modality for rows in outputs}
    parts = _timed(read_parts(state.work.dataset, name, samples, modalities), clock, counters)
    prepare = partial(_prepare, outputs, clock)
    ahead = 2 * max(state.lanes.batch_sizes.values())
    for row, prepared in ordered_map(state.decoders, prepare, parts, ahead):
        counters["parts_decoded"] += len({rows.encoder.card.modality for rows, _ in prepared})
        for rows, ready in prepared:
            take(state.lanes, rows, row, ready)
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
    return [_commit(state, samples, rows, receipt) for rows in outputs]


def _timed(parts: Iterator[Any], clock: Clock, counters: dict[str, int]) -> Iterator[Any]:
    since = time.perf_counter()
    for row, found in parts:
        clock.add("read", since)
        counters["parts_read"] += len(found)
        yield row, found
        since = time.perf_counter()


def _prepare(
    outputs: list[Rows], clock: Clock, item: tuple[int, dict[Modality, memoryview]]
) -> tuple[int, list[tuple[Rows, Prepared | Rejected]]]:
    """Decode the parts of one sample, each once, and prepare them for every encoder."""
    row, parts = item
    since = time.perf_counter()
    prepared: list[tuple[Rows, Prepared | Rejected]] = []
    for modality, data in parts.items():
        mine = [rows for rows in outputs if rows.encoder.card.modality is modality]
        try:
            decoded = decode(modality, data)
        except Rejected as problem:
            prepared += [(rows, problem) for rows in mine]
            continue
        prepared += [(rows, _ready(rows.encoder, decoded)) for rows in mine]
    clock.add("decode", since)
    return row, prepared


def _ready(encoder: Encoder, decoded: Decoded) -> Prepared | Rejected:
    try:
        ready = encoder.prepare(decoded.value)
    except Rejected as problem:
        return problem
    return replace(ready, repairs=decoded.repairs + ready.repairs)


def _commit(state: _State, samples: pa.Table, rows: Rows, common: Receipt) -> Receipt:
    numbers, vectors = finish(state.lanes, rows)
    since = time.perf_counter()
    card = rows.encoder.card
    suffixes = samples[f"{card.modality}_suffix"].to_pylist()
    columns = samples.select(["id", "key", "caption", *metadata_names(samples)]).take(pa.array(numbers, pa.int64()))
    members = [member_name(rows.about[row]["id"], suffixes[row]) for row in numbers]
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
