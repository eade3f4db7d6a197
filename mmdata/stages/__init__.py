"""Each stage joins the rooms below into one resumable job over shards."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from shlex import quote
from typing import Any, TypeVar

from mmdata.cluster import Limits, Resources, Task, default_resources, run
from mmdata.cluster.metrics import add, add_all, show
from mmdata.errors import ConfigError, Conflict, Damage, MMDataError, StorageError, TooManyRejects, WorkerDied
from mmdata.types import Receipt

Item = TypeVar("Item")
Watch = Callable[[str, int, int, int], None]
"""Called with the stage, shards done, shards in all and rows done."""

AGAIN = "run the same command again to do only what is left"
REPAIR = (
    "mmdata verify DATASET --repair takes back what is damaged; make that again (shards: mmdata shard SOURCE DATASET), "
    "then run this command again"
)
FATAL = (StorageError, ConfigError, Conflict)


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run of a stage did; `rows_in == rows_out + sum(rejected.values())`."""

    stage: str
    where: str
    shards: int
    shards_before: int  # finished by an earlier run
    rows_in: int
    rows_out: int
    absent: int
    rejected: dict[str, int]
    repaired: dict[str, int]
    seconds: float
    phases: dict[str, float]  # "start": until the first worker was ready, "end": after the last shard; others add up
    rows_now: int  # rows of this run
    next: str
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What `mmdata evaluate` says; `missing` has the figures for inputs left out, by their names.

    `strange` has the rows of a task that were left out because training has not their class.
    """

    head: str
    part: str
    rows: int
    figures: dict[str, float]
    beside: dict[str, Any]
    strange: dict[str, int]
    missing: dict[str, dict[str, float]]
    where: str


def resources_of(config: Any) -> Resources:
    """The workers that a config asks for; stages without workers run in this process."""
    workers = getattr(config, "workers", 0)
    address = getattr(config, "ray_address", None)
    gpus = _gpus(getattr(config, "gpus_per_worker", 0.0), address)
    limits = Limits()
    if hasattr(config, "sample_timeout"):
        limits = Limits(config.sample_timeout, config.shard_timeout, config.wait_for_nodes)
    return default_resources(workers, getattr(config, "cpus_per_worker", None), gpus, address, limits)


def _gpus(gpus: float | None, address: str | None) -> float:
    """GPUs of a worker: as asked, else one where this machine has any and no other cluster is meant."""
    if gpus is not None:
        return gpus
    return 1.0 if address is None and any(Path("/dev").glob("nvidia[0-9]*")) else 0.0


def silent(stage: str, done: int, total: int, rows: int) -> None:
    """The watch of those who do not watch."""


@dataclass(frozen=True, slots=True)
class Job:
    """The shards of a stage: those that are finished, those to do, and how to do them.

    `work` leaves out the samples of `Task.without`, as rejects; given `Task.only` it does those samples, writes
    nothing and returns no receipt. `samples` are the ids in a shard.
    """

    stage: str
    dataset: str
    where: str  # its output is
    setup: Callable[[], Any]
    work: Callable[[Any, Task], list[Receipt]]
    samples: Callable[[str], Sequence[int]]
    todo: Sequence[str]
    done: Sequence[Receipt]
    total_rows: int
    next: str


def run_job(job: Job, resources: Resources, max_reject_rate: float, watch: Watch) -> Summary:
    """Do what is to do. A bad shard does not stop the others; its error is raised at the end.

    Where the first that ends is given up because its workers die, the run ends, as the others would be given up, too.
    Raises TooManyRejects as soon as the rate is bound to be above `max_reject_rate`; what was done stays done.
    """
    started = time.monotonic()
    receipts, fresh, errors = list(job.done), list[Receipt](), list[tuple[str, Exception]]()
    shards = len({receipt.shard for receipt in job.done} - set(job.todo)) + len(job.todo)
    watch(job.stage, shards - len(job.todo), shards, 0)
    _check_rate(job, receipts, max_reject_rate)  # of what an earlier run did
    ready, last = list[float](), started
    outcomes = run(
        job.setup,
        job.work,
        [Task(shard) for shard in job.todo],
        resources,
        lambda: ready.append(time.monotonic()),
        lambda task: job.samples(task.shard),
        job.stage,
    )
    for number, ended in enumerate(outcomes, start=1):
        if isinstance(ended.error, FATAL):
            raise ended.error
        if isinstance(ended.error, WorkerDied) and not receipts:
            raise WorkerDied(f"{ended.error}\nrun the same command again to go on") from ended.error
        if ended.error is not None:
            errors.append((ended.item.shard, ended.error))
        fresh += ended.result or []
        receipts += ended.result or []
        watch(job.stage, shards - len(job.todo) + number, shards, sum(r.rows_out for r in fresh))
        _export(job.stage, ended.result or [], len(job.todo) - number)
        _check_rate(job, receipts, max_reject_rate)
        last = time.monotonic()
    if errors:
        raise _shards_failed(job, errors)
    _check_each(job, receipts, max_reject_rate)
    now = time.monotonic()
    fixed = {"start": min(ready) - started, "end": now - last} if ready else {}
    return _summary(job, receipts, fresh, now - started, fixed)


def _export(stage: str, receipts: list[Receipt], left: int) -> None:
    """The metrics of one shard that has ended."""
    show("mmdata_shards_left", left, stage=stage)
    for receipt in receipts:
        add("mmdata_shards", 1, stage=stage)
        add("mmdata_rows", receipt.rows_out, stage=stage)
        add("mmdata_bytes", sum(output.bytes for output in receipt.outputs.values()), stage=stage)
        add_all("mmdata_rejects", "reason", receipt.rejected, stage=stage)
        add_all("mmdata_seconds", "phase", receipt.seconds, stage=stage)


def _check_each(job: Job, receipts: list[Receipt], limit: float) -> None:
    """Of every set by itself: samples without its modality, and what others lost, are no part of the rate."""
    sets: dict[str, list[Receipt]] = {}
    for receipt in receipts:
        sets.setdefault(receipt.fingerprint, []).append(receipt)
    for made in sets.values():
        _check_rate(replace(job, total_rows=sum(receipt.rows_in for receipt in made)), made, limit)


def _check_rate(job: Job, receipts: list[Receipt], limit: float) -> None:
    rejected = sum(sum(r.rejected.values()) for r in receipts)
    if rejected <= limit * max(job.total_rows, 1):
        return
    reasons = _add(receipt.rejected for receipt in receipts)
    raise TooManyRejects(
        f"{rejected} of {job.total_rows} samples are left out, more than --max-reject-rate {limit:g} allows: "
        f"{', '.join(f'{n} {reason}' for reason, n in reasons.items())}\n"
        f"see which: mmdata rejects {quote(job.dataset)}"
    )


def _shards_failed(job: Job, errors: list[tuple[str, Exception]]) -> MMDataError:
    shard, first = errors[0]
    kind = type(first) if isinstance(first, MMDataError) else MMDataError
    remedy = REPAIR if isinstance(first, Damage) and job.stage != "shard" else AGAIN
    others = " and the others are finished" if len(errors) < len(job.todo) else ""
    return kind(
        f"{len(errors)} of {len(job.todo)} shards failed{others}; the first, {shard}: "
        f"{type(first).__name__}: {first}\n{remedy}"
    )


def _summary(
    job: Job, receipts: list[Receipt], fresh: list[Receipt], seconds: float, fixed: dict[str, float]
) -> Summary:
    return Summary(
        stage=job.stage,
        where=job.where,
        shards=len({r.shard for r in receipts}),
        shards_before=len({r.shard for r in job.done} - {r.shard for r in fresh}),
        rows_in=sum(r.rows_in for r in receipts),
        rows_out=sum(r.rows_out for r in receipts),
        absent=sum(r.absent for r in receipts),
        rejected=_add(r.rejected for r in receipts),
        repaired=_add(r.repaired for r in receipts),
        seconds=seconds,
        phases={phase: round(s, 2) for phase, s in (fixed | _add(r.seconds for r in fresh)).items()},
        rows_now=sum(r.rows_out for r in fresh),
        next=job.next,
    )


def _add(counts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return dict(sorted(total.items()))


def timed(items: Iterable[Item], clock: "Clock", phase: str) -> Iterator[Item]:
    """The items, with the time it takes to get each counted to `phase`."""
    since = time.perf_counter()
    for item in items:
        clock.add(phase, since)
        yield item
        since = time.perf_counter()
    clock.add(phase, since)


class Clock:
    """Seconds by phase; phases of several threads add up."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._lock = threading.Lock()

    def add(self, phase: str, since: float) -> float:
        """Count the time since `since` to `phase`; the time now."""
        now = time.perf_counter()
        with self._lock:
            self.seconds[phase] = self.seconds.get(phase, 0.0) + now - since
        return now
