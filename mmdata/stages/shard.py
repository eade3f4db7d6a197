"""Raw corpus -> shards: plan first, then every shard on its own."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mmdata.cluster import Resources, run, threads_of
from mmdata.config import ShardConfig
from mmdata.corpora import Corpus, kind_of, open_corpus
from mmdata.errors import NotFound
from mmdata.media import decode
from mmdata.stages import Clock, Job, Summary, Watch, ordered_map, run_job, silent
from mmdata.storage.dataset import SHARDS, Dataset
from mmdata.storage.plan import Plan, plan_rows, plan_table, read_plan, write_plan
from mmdata.storage.receipts import commit, read_receipts, rejects_file, tally, versions, write_summary
from mmdata.storage.shards import ShardWriter, read_sample_table
from mmdata.storage.store import sha256
from mmdata.types import Modality, Outcome, Reason, Receipt, Reject, Rejected, Sample

AHEAD = 64  # samples read and not yet decoded


def shard(config: ShardConfig, resources: Resources, watch: Watch = silent) -> Summary:
    """Make every shard of a dataset that is not made yet.

    Raises NotFound or ConfigError for a source that cannot be read, Conflict when the dataset was planned
    from something else, TooManyRejects above `config.max_reject_rate`.
    """
    dataset = Dataset.create(config.dataset)
    if config.overwrite:
        for info in dataset.store.list(SHARDS):
            dataset.store.delete(info.path)
    plan = _plan(dataset, config, resources)
    done = read_receipts(dataset.store, SHARDS)
    job = Job(
        stage="shard",
        where=dataset.url,
        setup=partial(_setup, dataset, plan, threads_of(resources)),
        work=_make_shard,
        todo=[name for name in plan.names if name not in done],
        done=list(done.values()),
        total_rows=plan.samples,
        next=f"mmdata extract {config.dataset} --encoder minilm",
    )
    summary = run_job(job, resources, config.max_reject_rate, watch)
    facts: dict[str, Any] = {"ignored": plan.ignored}
    if job.todo:
        receipts = read_receipts(dataset.store, SHARDS)
        write_summary(dataset.store, SHARDS, receipts.values())
        facts["duplicates"] = count_duplicates(dataset, receipts)
    return replace(summary, facts=facts)


def count_duplicates(dataset: Dataset, receipts: dict[str, Receipt]) -> int:
    """How many samples have the very parts of an earlier one."""
    seen: set[tuple[Any, ...]] = set()
    samples = 0
    for receipt in receipts.values():
        table = read_sample_table(dataset, receipt)
        columns = [table[f"{modality}_sha256"].to_pylist() for modality in Modality]
        seen.update(zip(*columns, strict=True))
        samples += table.num_rows
    return samples - len(seen)


def _plan(dataset: Dataset, config: ShardConfig, resources: Resources) -> Plan:
    kind, source = config.kind or kind_of(config.source), config.absolute_source()
    found = read_plan(dataset)
    try:
        corpus = open_corpus(source, kind, _columns(config))
        table, ignored = corpus.scan()
    except NotFound:
        done = read_receipts(dataset.store, SHARDS)
        if found is not None and len(done) == found.shards and found.options == config.plan_options():
            return found  # all is made; the source may be gone
        raise
    if config.shuffle is not None:
        table = table.take(np.random.default_rng(config.shuffle).permutation(table.num_rows))
    table = table.add_column(0, "id", pa.array(range(table.num_rows), pa.int64()))
    if config.dedup == "exact":
        table = _mark_duplicates(table, partial(open_corpus, source, kind, _columns(config)), resources)
    starts = _starts(table["bytes"].to_pylist(), config.samples_per_shard, config.shard_size)
    data = plan_table(table, starts)
    plan = Plan(
        source=source,
        kind=kind,
        options=config.plan_options(),
        samples=table.num_rows,
        shards=len(starts),
        ignored=ignored,
        sha256=sha256(data),
    )
    write_plan(dataset, plan, data)
    return plan


def _columns(config: ShardConfig) -> dict[str, str]:
    return {str(role): name for role, name in config.columns.items()}


def _starts(sizes: list[int], samples: int, limit: int) -> list[int]:
    """First rows of the shards: a shard ends before `samples` samples or `limit` bytes are passed."""
    starts, count, total = [0], 0, 0
    for row, size in enumerate(sizes):
        if count and (count == samples or total + size > limit):
            starts.append(row)
            count = total = 0
        count, total = count + 1, total + size
    return starts


def _mark_duplicates(table: pa.Table, corpus: Any, resources: Resources) -> pa.Table:
    """Read every sample once and mark those whose parts are those of an earlier one."""
    chunks = [(start, min(start + 1000, table.num_rows)) for start in range(0, table.num_rows, 1000)]
    digests: dict[int, str] = {}
    for ended in run(partial(_hash_setup, corpus, table), _hash_chunk, chunks, resources):
        if ended.error is not None:
            raise ended.error
        digests |= ended.result or {}
    first: dict[str, str] = {}
    reasons, messages = table["reason"].to_pylist(), table["message"].to_pylist()
    keys = table["key"].to_pylist()
    for row in sorted(digests):
        earlier = first.setdefault(digests[row], keys[row])
        if earlier != keys[row]:
            reasons[row], messages[row] = Reason.DUPLICATE.value, f"the same bytes as {earlier!r}"
    for name, values in (("reason", reasons), ("message", messages)):
        table = table.set_column(table.column_names.index(name), name, pa.array(values, pa.string()))
    return table


def _hash_setup(corpus: Any, table: pa.Table) -> tuple[Corpus, pa.Table]:
    return corpus(), table


def _hash_chunk(state: tuple[Corpus, pa.Table], chunk: tuple[int, int]) -> dict[int, str]:
    corpus, table = state
    rows = table.slice(chunk[0], chunk[1] - chunk[0])
    rows = rows.filter(pc.is_null(rows["reason"]))
    return {
        sample.id: "".join(sha256(part.data) for _, part in sorted(sample.parts.items()))
        for sample in corpus.read(rows)
        if isinstance(sample, Sample)
    }


@dataclass(frozen=True, slots=True)
class _State:
    dataset: Dataset
    plan: Plan
    corpus: Corpus
    pool: ThreadPoolExecutor


def _setup(dataset: Dataset, plan: Plan, threads: int) -> _State:
    corpus = open_corpus(plan.source, plan.kind, plan.options["columns"])
    return _State(dataset, plan, corpus, ThreadPoolExecutor(threads))


def _make_shard(state: _State, name: str) -> list[Receipt]:
    clock = Clock()
    since = time.perf_counter()
    rows = plan_rows(state.dataset, state.plan, name)
    writer, rejects = ShardWriter(), list(_marked(rows))
    planned = rows.filter(pc.is_null(rows["reason"]))
    check = partial(_check, state.plan.options, clock)
    for outcome in ordered_map(state.pool, check, _timed(state.corpus.read(planned), clock), AHEAD):
        rejects += [outcome] if isinstance(outcome, Reject) else outcome.notes
        if isinstance(outcome, Sample):
            writer.add(outcome)
    since = clock.add("wall", since)
    files = writer.files() | rejects_file(sorted(rejects, key=lambda r: (r.id, r.part)))
    clock.add("write", since)
    receipt = Receipt(
        stage="shard",
        shard=name,
        fingerprint=state.plan.fingerprint,
        inputs={"plan.parquet": state.plan.sha256},
        outputs={},
        rows_in=rows.num_rows,
        rows_out=len(writer.rows),
        absent=0,
        rejected=tally(rejects, Outcome.REJECTED),
        repaired=tally(rejects, Outcome.REPAIRED),
        seconds=clock.seconds,
        versions=versions("pyarrow", "pillow", "soundfile"),
    )
    return [commit(state.dataset.store, SHARDS, receipt, files)]


def _timed(samples: Iterator[Any], clock: Clock) -> Iterator[Any]:
    since = time.perf_counter()
    for sample in samples:
        clock.add("read", since)
        yield sample
        since = time.perf_counter()


def _marked(rows: pa.Table) -> Iterator[Reject]:
    for row in rows.filter(pc.is_valid(rows["reason"])).to_pylist():
        yield Reject(row["id"], row["key"], row["source"], "", Outcome.REJECTED, Reason(row["reason"]), row["message"])


def _check(options: dict[str, Any], clock: Clock, sample: Sample | Reject) -> Sample | Reject:
    """Leave out parts that are not wanted or cannot be decoded; a sample with no part left is a reject."""
    if isinstance(sample, Reject):
        return sample
    since = time.perf_counter()
    notes: list[Reject] = []
    parts = {}
    for modality, part in sample.parts.items():
        if modality not in options["modalities"]:
            continue
        try:
            if options["validate_media"]:
                decode(modality, part.data)
            parts[modality] = part
        except Rejected as problem:
            notes.append(_note(sample, modality, Outcome.REPAIRED, problem.reason, problem.message))
    clock.add("decode", since)
    missing = [modality for modality in options["require"] if modality not in parts]
    if parts and not missing:
        return replace(sample, parts=parts, notes=tuple(notes))
    if notes:
        return replace(notes[0], outcome=Outcome.REJECTED)
    what = f"no {' and no '.join(missing or options['modalities'])}"
    return _note(sample, "", Outcome.REJECTED, Reason.MISSING_PART, what)


def _note(sample: Sample, part: str, outcome: Outcome, reason: Reason, message: str) -> Reject:
    return Reject(sample.id, sample.key, sample.source, part, outcome, reason, message)
