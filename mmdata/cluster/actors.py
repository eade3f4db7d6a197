"""The pool of Ray actors, and the loop in the driver that feeds it and survives the death of any of them."""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mmdata.cluster import (
    IN_FLIGHT,
    Done,
    Item,
    Resources,
    Result,
    State,
    WorkerDied,
    allow_threads,
    attempt,
    setup_error,
)
from mmdata.cluster.connect import connected, fit, last_line
from mmdata.errors import MMDataError, ModelError
from mmdata.heap import ENVIRONMENT

ATTEMPTS = 3  # workers that may die over one item before it is given up
STALL_SECONDS = 60.0
log = logging.getLogger(__name__)


class _Actor:
    """What runs in a worker's process, in `IN_FLIGHT` threads."""

    def __init__(self, setup: Callable[[], Any], work: Callable[[Any, Any], Any], cpus: float) -> None:
        self.setup = setup
        allow_threads(max(1, int(cpus)))
        self.work = work

    def ready(self) -> Exception | None:
        """Set up; the error that ended it, if one did."""
        done = attempt("setup", self.setup)
        self.state = done.result
        return _portable(done.error)

    def run(self, item: Any) -> Done[Any, Any]:
        done = attempt(item, self.work, self.state, item)
        return replace(done, error=_portable(done.error))


def _portable(error: Exception | None) -> Exception | None:
    """An error that the driver can load."""
    if error is None or isinstance(error, MMDataError) or type(error).__module__ == "builtins":
        return error
    return MMDataError(repr(error))


@dataclass(eq=False)
class _Worker:
    """An actor as the driver sees it."""

    actor: Any
    doing: dict[Any, Any] = field(default_factory=dict)  # ref -> item


@dataclass
class _Pool:
    """The workers of a run, and the items that wait for them.

    Whatever was in work when a worker died is a suspect from then on, and is done again alone in a worker: so
    only the first death may count against an item that had no part in it, and that one gives no item up.
    """

    start: Callable[[], Any]
    ready: Callable[[], None]
    size: int
    queue: deque[Any]
    suspects: deque[Any] = field(default_factory=deque)
    deaths: dict[Any, int] = field(default_factory=dict)  # workers that died over an item
    starting: dict[Any, _Worker] = field(default_factory=dict)  # by ref
    workers: list[_Worker] = field(default_factory=list)  # that are ready
    working: dict[Any, _Worker] = field(default_factory=dict)  # by ref
    failed_starts: int = 0  # in a row

    @property
    def left(self) -> int:
        return len(self.queue) + len(self.suspects) + len(self.working)

    def grow(self) -> None:
        while len(self.starting) + len(self.workers) < min(self.size, self.left):
            worker = _Worker(self.start())
            self.starting[worker.actor.ready.remote()] = worker

    def feed(self) -> None:
        for load in range(IN_FLIGHT):
            for worker in self.workers:
                if len(worker.doing) == load and (item := self._next_for(worker)) is not None:
                    ref = worker.actor.run.remote(item)
                    worker.doing[ref] = item
                    self.working[ref] = worker

    def _next_for(self, worker: _Worker) -> Any:
        if self.suspects and not worker.doing:
            return self.suspects.popleft()
        alone = any(item in self.deaths for item in worker.doing.values())
        return self.queue.popleft() if self.queue and not alone else None


def run_on_ray(
    setup: Callable[[], State],
    work: Callable[[State, Item], Result],
    items: Sequence[Item],
    resources: Resources,
    ready: Callable[[], None],
) -> Iterator[Done[Item, Result]]:
    """`mmdata.cluster.run` on actors: they are fitted to the cluster, fed, and replaced when they die."""
    import ray

    with connected(resources.address):
        fitted = fit(resources, len(items))
        actor_class = ray.remote(_Actor).options(
            num_cpus=fitted.cpus,
            num_gpus=fitted.gpus,
            max_concurrency=IN_FLIGHT,
            max_restarts=0,
            scheduling_strategy="SPREAD",
            runtime_env={"env_vars": ENVIRONMENT},
        )
        arguments = ray.put(setup), ray.put(work), fitted.cpus  # once, however many workers there are
        pool = _Pool(lambda: actor_class.remote(*arguments), ready, fitted.workers or 0, deque(items))
        try:
            yield from _drive(pool)
        finally:
            for worker in [*pool.workers, *pool.starting.values()]:
                ray.kill(worker.actor)


def _drive(pool: _Pool) -> Iterator[Done[Any, Any]]:
    import ray

    moved = time.monotonic()
    while pool.left:
        pool.grow()
        pool.feed()
        ended, _ = ray.wait([*pool.starting, *pool.working], timeout=min(5.0, STALL_SECONDS))
        if ended:
            moved = time.monotonic()
        elif time.monotonic() - moved > STALL_SECONDS:
            moved = time.monotonic()
            log.warning("%s", _stall(pool))
        for ref in ended:
            if ref in pool.starting:
                _started(pool, ref)
            elif (done := _ended(pool, ref)) is not None:
                yield done


def _started(pool: _Pool, ref: Any) -> None:
    import ray
    from ray.exceptions import RayActorError, RayError

    worker = pool.starting.pop(ref)
    try:
        error = ray.get(ref)
    except RayActorError as death:
        pool.failed_starts += 1
        if getattr(death, "_actor_init_failed", False):  # mmdata, or what `setup` needs, is not there
            raise ModelError(f"a worker could not be set up: {last_line(death)}") from death
        if pool.failed_starts >= ATTEMPTS:
            raise ModelError(f"{ATTEMPTS} workers died while they were set up: {_why(death)}") from death
        log.warning("a worker died while it was set up (%d of %d): %s", pool.failed_starts, ATTEMPTS, _why(death))
        return
    except RayError as problem:
        raise ModelError(f"a worker could not be set up: {last_line(problem)}") from problem
    if error is not None:
        ray.kill(worker.actor)
        raise setup_error(error)
    pool.failed_starts = 0
    pool.workers.append(worker)
    pool.ready()


def _ended(pool: _Pool, ref: Any) -> Done[Any, Any] | None:
    """The outcome of an item, or None when its worker died and it is to be done again."""
    import ray
    from ray.exceptions import RayError, RayTaskError

    worker = pool.working.pop(ref)
    item = worker.doing.pop(ref)
    try:
        done: Done[Any, Any] = ray.get(ref)
    except RayTaskError as problem:
        return Done(item, error=MMDataError(f"the result of {item} cannot be sent: {last_line(problem)}"))
    except RayError as death:
        return _died(pool, worker, item, _why(death))
    return done


def _died(pool: _Pool, worker: _Worker, item: Any, why: str) -> Done[Any, Any] | None:
    import ray

    if worker in pool.workers:
        pool.workers.remove(worker)
        ray.kill(worker.actor)  # it may only be out of reach
    pool.deaths[item] = pool.deaths.get(item, 0) + 1
    log.warning("a worker died over %s (%d of %d): %s", item, pool.deaths[item], ATTEMPTS, why)
    if pool.deaths[item] < ATTEMPTS:
        pool.suspects.append(item)
        return None
    return Done(item, error=WorkerDied(f"{item} killed {ATTEMPTS} workers; the last: {why}"))


def _why(death: Exception) -> str:
    """What Ray says of a death, without its tables of ids and its advice."""
    lines = [line.strip() for line in str(death).splitlines()]
    told = next((line for line in lines if "dead because" in line), lines[0])
    return told.partition(" Some common causes")[0]


def _stall(pool: _Pool) -> str:
    import ray

    doing = ", ".join(str(item) for worker in pool.workers for item in worker.doing.values())
    free = ray.available_resources()
    return (
        f"nothing ended for {STALL_SECONDS:g} s: {len(pool.workers)} workers ready, {len(pool.starting)} waiting to "
        f"start (free: {free.get('CPU', 0):g} CPUs, {free.get('GPU', 0):g} GPUs), "
        f"{len(pool.queue) + len(pool.suspects)} shards queued, in work: {doing or 'nothing'}"
    )
