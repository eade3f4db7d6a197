"""Raw corpus -> shards: plan first, then every shard on its own."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import partial
from shlex import quote
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mmdata.cluster import Resources, Task, in_work, threads
from mmdata.config import ShardConfig
from mmdata.corpora import Corpus, kind_of, open_corpus
from mmdata.crash import point
from mmdata.errors import ConfigError, NotFound, conflict
from mmdata.media import decode
from mmdata.media.text import caption
from mmdata.stages import Clock, Job, Summary, Watch, run_job, silent, timed
from mmdata.stages.ahead import ordered_map
from mmdata.stages.duplicates import count_duplicates
from mmdata.stages.planning import planned
from mmdata.storage.dataset import SHARDS, Dataset
from mmdata.storage.plan import Plan, plan_rows, read_plan, write_plan
from mmdata.storage.receipts import commit, read_receipts, rejects_file, tally, versions, write_summary
from mmdata.storage.shards import Packed, ShardWriter, pack
from mmdata.storage.store import Store
from mmdata.types import Modality, Outcome, Reason, Receipt, Reject, Rejected, Sample

CAPTION_CHARS = 500
AHEAD = 64  # samples in work
BUDGET = 64 << 20  # bytes of samples that are checked and wait to be written


def shard(config: ShardConfig, resources: Resources, watch: Watch = silent) -> Summary:
    """Make every shard of a dataset that is not made yet.

    Raises NotFound or ConfigError for a source that cannot be read, Conflict when the dataset was planned
    from something else, TooManyRejects above `config.max_reject_rate`.
    """
    _check_apart(config)
    dataset = Dataset(config.dataset)
    with suppress(NotFound):  # it is made once there is something to put into it
        Dataset.open(config.dataset)
    plan = _plan(dataset, config, resources)
    done = read_receipts(dataset.store, SHARDS)
    _check_made_by(plan, done, dataset)
    job = Job(
        stage="shard",
        dataset=dataset.url,
        where=dataset.url,
        setup=partial(_setup, dataset, plan),
        work=_make_shard,
        samples=lambda name: plan_rows(dataset, plan, name)["id"].to_pylist(),
        todo=[name for name in plan.names if name not in done],
        done=list(done.values()),
        total_rows=plan.samples,
        next=f"mmdata extract {quote(config.dataset)} --encoder minilm",
    )
    summary = run_job(job, resources, config.max_reject_rate, watch)
    write_summary(dataset.store, SHARDS, changed=bool(job.todo))
    facts: dict[str, Any] = {"ignored": plan.ignored}
    if job.todo:
        facts["duplicates"] = count_duplicates(dataset, read_receipts(dataset.store, SHARDS))
    return replace(summary, facts=facts)


def _check_made_by(plan: Plan, done: dict[str, Receipt], dataset: Dataset) -> None:
    for name, receipt in done.items():
        if receipt.fingerprint != plan.fingerprint:
            there, asked = {"plan": receipt.fingerprint}, {"plan": plan.fingerprint}
            raise conflict(f"shard {name} of {dataset.url}", there, asked, "use another dataset, or --overwrite")


def _check_apart(config: ShardConfig) -> None:
    """A folder that holds its own dataset would change with every shard."""
    if (config.kind or kind_of(config.source)) != "folder":
        return
    source, dataset = Store(config.source).url, Store(config.dataset).url
    if f"{dataset}/".startswith(f"{source}/"):
        raise ConfigError(f"the dataset {dataset} lies in its source {source}; put it elsewhere")


def _plan(dataset: Dataset, config: ShardConfig, resources: Resources) -> Plan:
    kind, source = config.kind or kind_of(config.source), config.absolute_source()
    found = read_plan(dataset)
    try:
        new = planned(dataset, found, source, kind, config.plan_options(), resources)
    except NotFound:
        done = read_receipts(dataset.store, SHARDS)
        asked = (source, config.plan_options(), False)
        if found and (found.source, found.options, config.overwrite) == asked and len(done) == found.shards:
            return found  # all is made; the source may be gone
        raise
    Dataset.create(dataset.url)
    if config.overwrite and _is_of_another(dataset, found, new.plan):
        for info in dataset.store.list(SHARDS):
            dataset.store.delete(info.path)
    return write_plan(dataset, new.plan, new.data)


def _is_of_another(dataset: Dataset, found: Plan | None, plan: Plan) -> bool:
    """Whether what is there was planned otherwise; its receipts tell where the plan is lost."""
    if found is not None:
        return found != found.as_now(plan)
    return any(receipt.fingerprint != plan.fingerprint for receipt in read_receipts(dataset.store, SHARDS).values())


@dataclass(frozen=True, slots=True)
class _State:
    dataset: Dataset
    plan: Plan
    corpus: Corpus
    pool: ThreadPoolExecutor


def _setup(dataset: Dataset, plan: Plan) -> _State:
    point("shard.setup")
    corpus = open_corpus(plan.source, plan.kind, plan.options["columns"], outside=plan.options["outside"])
    return _State(dataset, plan, corpus, ThreadPoolExecutor(threads()))


def _make_shard(state: _State, task: Task) -> list[Receipt]:
    clock = Clock()
    rows = _without(plan_rows(state.dataset, state.plan, task.shard), task)
    writer, rejects = ShardWriter(), list(_marked(rows))
    planned = rows.filter(pc.is_null(rows["reason"]))
    make = partial(_packed, task.shard, state.plan.options, clock)
    samples = timed(state.corpus.read(planned), clock, "read")
    with closing(ordered_map(state.pool, make, samples, ahead=AHEAD, budget=BUDGET, size=_size)) as line:
        for packed, notes in line:
            rejects += notes
            point("shard.sample")
            if packed is not None:
                writer.add(packed)
    if task.only is not None:
        return []
    since = time.perf_counter()
    files = writer.files() | rejects_file(sorted(rejects, key=lambda r: (r.id, r.part)))
    clock.add("write", since)
    point("shard.made")
    receipt = Receipt(
        stage="shard",
        shard=task.shard,
        fingerprint=state.plan.fingerprint,
        inputs={"plan.parquet": state.plan.sha256},
        outputs={},
        rows_in=rows.num_rows,
        rows_out=len(writer.rows),
        absent=0,
        rejected=tally(rejects, Outcome.REJECTED),
        repaired=tally(rejects, Outcome.REPAIRED),
        seconds=clock.seconds,
        versions=versions("pyarrow", "pillow", "simplejpeg", "soundfile", "av"),
    )
    return [commit(state.dataset.store, SHARDS, receipt, files)]


def _packed(
    shard: str, options: dict[str, Any], clock: Clock, sample: Sample | Reject
) -> tuple[Packed | None, Sequence[Reject]]:
    """What of a sample goes into the shard, and what the rejects report says of it."""
    with in_work(shard, sample.id):
        outcome = _check(options, clock, sample)
    if isinstance(outcome, Reject):
        return None, [outcome]
    text = outcome.parts.get(Modality.TEXT)
    return pack(outcome, caption(text.data, CAPTION_CHARS) if text else None), outcome.notes


def _size(made: tuple[Packed | None, Sequence[Reject]]) -> int:
    return made[0].size if made[0] else 0


def _without(rows: pa.Table, task: Task) -> pa.Table:
    """The rows to do, with those marked that workers have died over."""
    if task.only is not None:
        return rows.filter(pc.is_in(rows["id"], pa.array(task.only, pa.int64())))
    if not task.without:
        return rows
    marks = {"reason": rows["reason"].to_pylist(), "message": rows["message"].to_pylist()}
    for place, sample in enumerate(rows["id"].to_pylist()):
        if sample in task.without:
            marks["reason"][place], marks["message"][place] = task.without[sample].value, task.told(sample)
    for name, values in marks.items():
        rows = rows.set_column(rows.column_names.index(name), name, pa.array(values, pa.string()))
    return rows


def _marked(rows: pa.Table) -> Iterator[Reject]:
    for row in rows.filter(pc.is_valid(rows["reason"])).to_pylist():
        yield Reject(row["id"], row["key"], row["source"], "", Outcome.REJECTED, Reason(row["reason"]), row["message"])


def _check(options: dict[str, Any], clock: Clock, sample: Sample | Reject) -> Sample | Reject:
    """Leave out parts that are not wanted or cannot be decoded; a sample with no part left is a reject."""
    if isinstance(sample, Reject):
        return sample
    since = time.perf_counter()
    unwanted = set(Modality) - set(options["modalities"])
    notes = [note for note in sample.notes if note.part not in unwanted]
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
    unusable = [note for note in notes if note.part in set(Modality)]  # parts that were there
    if unusable:
        return replace(unusable[0], outcome=Outcome.REJECTED)
    what = f"no {' and no '.join(missing or options['modalities'])}"
    return _note(sample, "", Outcome.REJECTED, Reason.MISSING_PART, what)


def _note(sample: Sample, part: str, outcome: Outcome, reason: Reason, message: str) -> Reject:
    return Reject(sample.id, sample.key, sample.source, part, outcome, reason, message)
