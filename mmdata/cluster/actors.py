"""The pool of Ray actors, and the loop in the driver that feeds it and survives the death of any of them."""

import logging
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from mmdata.cluster import IN_FLIGHT, Done, Item, Resources, Result, State, WorkerDied, attempt, kept_until, setup_error
from mmdata.errors import ConfigError, MMDataError, ModelError

ATTEMPTS = 3  # workers that may die over one item before it is given up
STALL_SECONDS = 60.0
log = logging.getLogger(__name__)


class _Actor:
    """What runs in a worker's process, in `IN_FLIGHT` threads."""

    def __init__(self, setup: Callable[[], Any], work: Callable[[Any, Any], Any]) -> None:
        self.setup = setup
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

    with _connected(resources.address):
        actor_class = ray.remote(_Actor).options(
            num_cpus=resources.cpus,
            num_gpus=resources.gpus,
            max_concurrency=IN_FLIGHT,
            max_restarts=0,
            scheduling_strategy="SPREAD",
        )
        size = _fit(resources)
        arguments = ray.put(setup), ray.put(work)  # once, however many workers there are
        pool = _Pool(lambda: actor_class.remote(*arguments), ready, size, deque(items))
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
            raise ModelError(f"a worker could not be set up: {_last_line(death)}") from death
        if pool.failed_starts >= ATTEMPTS:
            raise ModelError(f"{ATTEMPTS} workers died while they were set up: {_why(death)}") from death
        log.warning("a worker died while it was set up (%d of %d): %s", pool.failed_starts, ATTEMPTS, _why(death))
        return
    except RayError as problem:
        raise ModelError(f"a worker could not be set up: {_last_line(problem)}") from problem
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
        return Done(item, error=MMDataError(f"the result of {item} cannot be sent: {_last_line(problem)}"))
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


def _last_line(error: Exception) -> str:
    return str(error).strip().rpartition("\n")[2].strip()


def _fit(resources: Resources) -> int:
    """How many workers the nodes can hold; at least one, or ConfigError saying what is asked and there."""
    import ray

    nodes = [(n["Resources"].get("CPU", 0.0), n["Resources"].get("GPU", 0.0)) for n in ray.nodes() if n["Alive"]]
    asked = resources.cpus, resources.gpus
    room = sum(int(min(there / need for there, need in zip(node, asked, strict=True) if need) + 1e-9) for node in nodes)
    if room < 1:
        there = "; ".join(f"{cpus:g} CPUs and {gpus:g} GPUs" for cpus, gpus in sorted(set(nodes)))
        raise ConfigError(
            f"one worker needs {resources.cpus:g} CPUs and {resources.gpus:g} GPUs, and no node of the cluster has "
            f"that; there are: {there}; ask less with cpus_per_worker and gpus_per_worker"
        )
    wanted = resources.workers or room
    if wanted > room:
        log.warning("%d workers asked, the cluster has room for %d", wanted, room)
    return min(wanted, room)


def _stall(pool: _Pool) -> str:
    import ray

    doing = ", ".join(str(item) for worker in pool.workers for item in worker.doing.values())
    free = ray.available_resources()
    return (
        f"nothing ended for {STALL_SECONDS:g} s: {len(pool.workers)} workers ready, {len(pool.starting)} waiting to "
        f"start (free: {free.get('CPU', 0):g} CPUs, {free.get('GPU', 0):g} GPUs), "
        f"{len(pool.queue) + len(pool.suspects)} shards queued, in work: {doing or 'nothing'}"
    )


@contextmanager
def _connected(address: str | None) -> Iterator[None]:
    """A connection to the cluster at `address`, or to a Ray of our own; one that is there already is used and kept."""
    import ray
    from ray.exceptions import RayError

    if ray.is_initialized():
        yield
        return
    quiet = {"logging_level": "error", "log_to_driver": False}  # Ray warns at each start that it uses a token
    try:
        if address is None:
            ray.init(address="local", include_dashboard=False, **quiet)
        else:
            _knock(address)
            ray.init(address=address, **quiet)
    except (OSError, ValueError, RuntimeError, RayError) as error:
        what = f"reach the Ray cluster at {address}" if address else "start Ray on this machine"
        raise ConfigError(f"cannot {what}: {_last_line(error)}") from error
    with ExitStack() as until:
        (kept_until() or until).callback(ray.shutdown)
        yield


def _knock(address: str) -> None:
    """OSError when nobody listens at HOST:PORT; Ray itself tries for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
