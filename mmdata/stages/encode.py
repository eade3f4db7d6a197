"""One shard through the encoders: read, decode, prepare, encode, write."""

import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from math import isfinite
from numbers import Real
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mmdata.cluster import Task, in_work, threads
from mmdata.crash import point
from mmdata.encoders import Encoder, Prepared, decode_options, load_encoder
from mmdata.errors import ModelError, told
from mmdata.media import decode
from mmdata.media.memory import with_room
from mmdata.stages import Clock, timed
from mmdata.stages.ahead import ordered_map
from mmdata.stages.lanes import Lanes, Line, nbytes
from mmdata.stages.rows import Gathering
from mmdata.storage.dataset import Dataset, features_folder
from mmdata.storage.features import features_file, same_rows
from mmdata.storage.receipts import commit, rejects_file, tally
from mmdata.storage.shards import member_name, metadata_names, read_parts, read_sample_table
from mmdata.types import EncoderCard, Modality, Outcome, Reason, Receipt, Rejected

AHEAD_BYTES = 128 << 20  # of model inputs that wait for their turn
TOGETHER, TOGETHER_BYTES = 8, 128 << 10  # samples, and bytes of them, that a decoder takes at once
GPU_LANES = 2  # one copies while the other computes

Inputs = Sequence[Prepared] | Rejected | ModelError
Read = tuple[int, dict[Modality, memoryview]]
"""A row of the sample table, and its parts."""
Share = tuple[Gathering, Inputs, tuple[Reason, ...]]
Ready = tuple[int, list[Share]]
"""A row of the sample table, and what it gives each encoder that takes one of its parts, with the decoder's repairs."""


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
    ahead: int  # groups of samples in work in the decoders


def setup(work: Work, gpus: float) -> _State:
    """Load every encoder, once a worker."""
    from mmdata.encoders.device import configure, pick_device, start_lane

    configure()
    device = pick_device(gpus)
    point("extract.load_model")
    encoders = [load_encoder(card, device) for card in work.cards]
    point("extract.model_loaded")
    sizes = {encoder.card.name: work.batch_size or encoder.batch_size for encoder in encoders}
    count = threads() if device == "cpu" else GPU_LANES
    lanes = Lanes(ThreadPoolExecutor(count, "encode", partial(start_lane, device)), count, sizes)
    decoders = ThreadPoolExecutor(threads(), "decode")
    return _State(work, encoders, decoders, lanes, ahead=max(2 * threads(), *sizes.values()))


def encode_shard(state: _State, task: Task) -> list[Receipt]:
    """The features of one shard for every encoder that has none of it yet; each sample is decoded once.

    Raises ModelError for the encoders that fail, after the features of the others are written.
    """
    clock, counters, name = Clock(), {"parts_read": 0, "parts_decoded": 0}, task.shard
    shard = state.work.shards[name]
    samples = read_sample_table(state.work.dataset, shard)
    if task.only is not None:
        samples = samples.filter(pc.is_in(samples["id"], pa.array(task.only, pa.int64())))
    about = samples.select(["id", "key", "source"]).to_pylist()
    wanted = {card.name for card in state.work.missing[name]}
    watched = partial(_in_work, name, about)
    outputs = [Gathering(Line(e, state.lanes, watched), about) for e in state.encoders if e.card.name in wanted]
    modalities = {output.card.modality for output in outputs}
    parts = timed(read_parts(state.work.dataset, name, samples, modalities), clock, "read")
    prepare = partial(_prepare, task, outputs, clock)
    groups = ordered_map(state.decoders, prepare, _groups(parts), ahead=state.ahead, budget=AHEAD_BYTES, size=_size)
    with closing(groups):
        for row, ready in chain.from_iterable(timed(groups, clock, "decode_wait")):
            point("extract.sample")
            decoded = len({output.card.modality for output, _, _ in ready})
            counters["parts_read"] += decoded
            counters["parts_decoded"] += decoded
            for output, inputs, repairs in ready:
                output.take(row, inputs, repairs)
            if all(output.line.error for output in outputs):
                break
    if task.only is not None:
        for output in outputs:
            output.line.finish()
        return []
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
    return _commit_each(state, samples, outputs, receipt)


def _in_work(shard: str, about: list[dict[str, Any]], rows: Iterable[int]) -> AbstractContextManager[None]:
    return in_work(shard, *sorted({about[row]["id"] for row in rows}))


def _groups(samples: Iterable[Read]) -> Iterator[list[Read]]:
    """Small samples several at once: to hand over one costs as much as a tenth of decoding it (docs/decisions.md)."""
    group, size = list[Read](), 0
    for sample in samples:
        group.append(sample)
        size += sum(len(part) for part in sample[1].values())
        if len(group) == TOGETHER or size >= TOGETHER_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _prepare(task: Task, outputs: list[Gathering], clock: Clock, group: list[Read]) -> list[Ready]:
    return [_prepare_sample(task, outputs, clock, *sample) for sample in group]


def _prepare_sample(
    task: Task, outputs: list[Gathering], clock: Clock, row: int, parts: dict[Modality, memoryview]
) -> Ready:
    """Decode the parts of one sample, each once, and prepare them for every encoder."""
    sample = outputs[0].about[row]["id"]
    if sample in task.without:
        lost = Rejected(task.without[sample], task.told(sample))
        return row, [(output, lost, ()) for output in outputs if output.card.modality in parts]
    with in_work(task.shard, sample):
        return row, _decoded(outputs, clock, parts)


def _decoded(outputs: list[Gathering], clock: Clock, parts: dict[Modality, memoryview]) -> list[Share]:
    since = time.perf_counter()
    prepared: list[Share] = []
    for modality, data in parts.items():
        mine = [output for output in outputs if output.card.modality is modality]
        try:
            decoded = decode(modality, data, **decode_options(mine[0].card))  # one run, one way to decode
        except Rejected as problem:
            prepared += [(output, problem, ()) for output in mine]
            continue
        prepared += [(output, _ready(output.line.encoder, decoded.value), decoded.repairs) for output in mine]
    clock.add("decode", since)
    return prepared


def _ready(encoder: Encoder, value: Any) -> Inputs:
    try:
        inputs = with_room(lambda: encoder.prepare(value))
    except Rejected as problem:
        return problem
    except (Exception, SystemExit) as error:  # of an encoder, over one sample of many
        return Rejected(Reason.ENCODE_FAILED, f"{encoder.card.spec} cannot take it: {told(error)}")
    if not isinstance(inputs, Sequence) or not inputs or not all(isinstance(one, Prepared) for one in inputs):
        return ModelError(f"{encoder.card.spec}: prepare gave {inputs!r:.100}; one Prepared or more, in a list, is due")
    if wrong := next((one for one in inputs if not _is_whole(one)), None):
        due = "a finite length >= 0, start and end, and a tuple of Reasons as repairs are due"
        return ModelError(f"{encoder.card.spec}: prepare gave {wrong!r:.200}; {due}")
    return inputs


def _is_whole(one: Prepared) -> bool:
    numbers: list[Any] = [one.length, one.start, one.end]
    if not all(isinstance(number, Real) and isfinite(number) for number in numbers) or one.length < 0:
        return False
    return isinstance(one.repairs, tuple) and all(isinstance(reason, Reason) for reason in one.repairs)


def _size(group: list[Ready]) -> int:
    shares = [inputs for _, shares in group for _, inputs, _ in shares]
    return sum(nbytes(one.data) for inputs in shares if isinstance(inputs, Sequence) for one in inputs)


def _commit_each(state: _State, samples: pa.Table, outputs: list[Gathering], common: Receipt) -> list[Receipt]:
    receipts, errors = list[Receipt](), list[ModelError]()
    for output in outputs:
        try:
            receipts.append(_commit(state, samples, output, common))
        except ModelError as error:
            errors.append(error)
    if errors:
        raise ModelError("\n".join(map(str, errors))) from errors[0]
    return receipts


def _commit(state: _State, samples: pa.Table, output: Gathering, common: Receipt) -> Receipt:
    rows = output.finish()
    point("extract.encoded")
    since = time.perf_counter()
    card = output.card
    suffixes = samples[f"{card.modality}_suffix"].to_pylist()
    columns = samples.select(["id", "key", "caption", *metadata_names(samples)]).take(
        pa.array(rows.numbers, pa.int64())
    )
    members = [member_name(output.about[row]["id"], suffixes[row]) for row in rows.numbers]
    about = columns.add_column(2, "member", pa.array(members, pa.string()))
    data = features_file(card, about, rows.vectors, tokens=rows.tokens, spans=rows.spans)
    notes = sorted(output.notes, key=lambda note: note.id)
    output.line.clock.add("write", since)
    receipt = replace(
        common,
        fingerprint=card.fingerprint,
        rows_in=output.rows_in,
        rows_out=len(rows.numbers),
        absent=samples.num_rows - output.samples,
        rejected=tally(notes, Outcome.REJECTED),
        repaired=tally(notes, Outcome.REPAIRED),
        seconds=common.seconds | output.line.clock.seconds,
        versions=card.versions,
    )
    return commit(
        state.work.dataset.store,
        features_folder(card.name),
        receipt,
        {"parquet": data} | rejects_file(notes),
        adopt=lambda suffix, found: suffix == "parquet" and same_rows(card, found, data),
    )
