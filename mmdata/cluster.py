"""Run the same work over many items: in this process, or on Ray actors. The only module that imports ray.

The unit of work, retry and resume is the item (a shard's name). Each worker is set up once, so a model is
loaded once a worker, and has two items in flight, so the next shard is read while this one is encoded. Only
items and results cross Ray; bytes go from storage to worker to storage.
"""

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from mmdata.errors import ConfigError, MMDataError, ModelError

Item = TypeVar("Item")
Result = TypeVar("Result")
State = TypeVar("State")

IN_FLIGHT = 2
ATTEMPTS = 3  # workers that may die over one item before it is given up
STALL_SECONDS = 60.0
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Resources:
    """`workers=0` means this process, without Ray; None fits the pool to the cluster."""

    workers: int | None = 0
    cpus: float = 1.0  # of one worker
    gpus: float = 0.0  # of one worker
    address: str | None = None


@dataclass(frozen=True, slots=True)
class Done(Generic[Item, Result]):
    """An item with its result, or with the error that ended it."""

    item: Item
    result: Result | None = None
    error: Exception | None = None


def default_resources(workers: int | None, cpus: float | None, gpus: float, address: str | None) -> Resources:
    """Without a cluster and without `workers`: this process. CPUs a worker default to an even share."""
    address = address or os.environ.get("RAY_ADDRESS") or None
    if workers is None and address is None:
        workers = 0
    share = max(1.0, (os.cpu_count() or 1) / workers) if workers and address is None else 1.0
    return Resources(workers, cpus or float(int(share)), gpus, address)


def run(
    setup: Callable[[], State],
    work: Callable[[State, Item], Result],
    items: Sequence[Item],
    resources: Resources,
) -> Iterator[Done[Item, Result]]:
    """Yield each item's outcome as it ends. One that fails or kills its worker never stops the others.

    `setup` runs once a worker; when it fails the run fails at once, with its error. Raises ConfigError when
    the cluster can never place a worker, ModelError when workers keep dying before they are set up.
    """
    if not items:
        return
    if resources.workers == 0:
        yield from _run_here(setup, work, items)
    else:
        yield from _run_on_ray(setup, work, items, resources)


def threads_of(resources: Resources) -> int:
    """CPU threads that one worker may use."""
    return (os.cpu_count() or 1) if resources.workers == 0 else max(1, int(resources.cpus))


def _attempt(work: Callable[[State, Item], Result], state: State, item: Item) -> Done[Item, Result]:
    try:
        return Done(item, work(state, item))
    except Exception as error:  # the one place that turns any failure of a shard into an outcome
        if not isinstance(error, MMDataError):
            log.exception("shard %s failed", item)
        return Done(item, error=error)


def _run_here(
    setup: Callable[[], State], work: Callable[[State, Item], Result], items: Sequence[Item]
) -> Iterator[Done[Item, Result]]:
    state = setup()
    queue = deque(items)
    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        flying: set[Future[Done[Item, Result]]] = set()
        while queue or flying:
            while queue and len(flying) < IN_FLIGHT:
                flying.add(pool.submit(_attempt, work, state, queue.popleft()))
            ended, flying = wait(flying, return_when=FIRST_COMPLETED)
            for future in ended:
                yield future.result()


class _Worker:
    """The body of an actor; its methods run in `IN_FLIGHT` threads."""

    def __init__(self, setup: Callable[[], Any], work: Callable[[Any, Any], Any]) -> None:
        self.state = setup()
        self.work = work

    def ready(self) -> bool:
        return True

    def run(self, item: Any) -> Done[Any, Any]:
        done = _attempt(self.work, self.state, item)
        return done if _picklable(done.error) else Done(item, error=MMDataError(repr(done.error)))


def _picklable(error: Exception | None) -> bool:
    return error is None or isinstance(error, MMDataError) or type(error).__module__ == "builtins"


@dataclass
class _Pool:
    """The actors of a run, what each is doing, and how often an item has killed its worker."""

    start: Callable[[], Any]
    size: int
    starting: dict[Any, Any] = field(default_factory=dict)  # ref -> actor
    running: dict[Any, tuple[Any, Any]] = field(default_factory=dict)  # ref -> actor, item
    actors: list[Any] = field(default_factory=list)  # ready ones
    deaths: dict[Any, int] = field(default_factory=dict)
    failed_starts: int = 0

    def grow(self, wanted: int) -> None:
        while len(self.starting) + len(self.actors) < min(self.size, wanted):
            actor = self.start()
            self.starting[actor.ready.remote()] = actor

    def feed(self, queue: deque[Any]) -> None:
        for actor in self.actors:
            load = sum(1 for a, _ in self.running.values() if a is actor)
            while queue and load < IN_FLIGHT:
                item = queue.popleft()
                self.running[actor.run.remote(item)] = (actor, item)
                load += 1

    def bury(self, actor: Any) -> None:
        self.actors = [a for a in self.actors if a is not actor]


def _run_on_ray(
    setup: Callable[[], State],
    work: Callable[[State, Item], Result],
    items: Sequence[Item],
    resources: Resources,
) -> Iterator[Done[Item, Result]]:
    import ray

    with _connected(resources.address):
        size = min(_fit(resources), len(items))
        actor_class = ray.remote(_Worker).options(
            num_cpus=resources.cpus,
            num_gpus=resources.gpus,
            max_concurrency=IN_FLIGHT,
            max_restarts=0,
            scheduling_strategy="SPREAD",
        )
        pool = _Pool(lambda: actor_class.remote(setup, work), size)
        try:
            yield from _drive(pool, deque(items))
        finally:
            for actor in [*pool.actors, *pool.starting.values()]:
                ray.kill(actor)


def _drive(pool: _Pool, queue: deque[Any]) -> Iterator[Done[Any, Any]]:
    import ray

    moved = time.monotonic()
    while queue or pool.running:
        pool.grow(len(queue) + len(pool.running))
        pool.feed(queue)
        ended, _ = ray.wait([*pool.starting, *pool.running], timeout=5.0)
        if not ended and time.monotonic() - moved > STALL_SECONDS:
            moved = time.monotonic()
            log.warning("%s", _stall(pool, queue))
        for ref in ended:
            moved = time.monotonic()
            if ref in pool.starting:
                _started(pool, ref)
            else:
                yield from _ended(pool, ref, queue)


def _started(pool: _Pool, ref: Any) -> None:
    import ray
    from ray.exceptions import ActorDiedError, ActorUnavailableError, RayTaskError

    actor = pool.starting.pop(ref)
    try:
        ray.get(ref)
        pool.actors.append(actor)
    except (ActorDiedError, ActorUnavailableError) as error:
        cause = error.__cause__ or getattr(error, "cause", None)
        if isinstance(cause, RayTaskError) or "creation task" in str(error):
            raise _setup_error(error) from error
        pool.failed_starts += 1
        if pool.failed_starts >= ATTEMPTS:
            raise ModelError(f"{ATTEMPTS} workers died while they were set up: {_brief(error)}") from error


def _setup_error(error: Exception) -> MMDataError:
    """What `setup` raised in the worker, as the error it was."""
    for kind in _kinds(MMDataError):
        if f"{kind.__module__}.{kind.__name__}: " in str(error):
            return kind(str(error).rpartition(f"{kind.__name__}: ")[2].strip())
    return ModelError(f"a worker could not be set up: {_brief(error)}")


def _kinds(root: type[MMDataError]) -> list[type[MMDataError]]:
    return [kind for child in root.__subclasses__() for kind in (child, *_kinds(child))]


def _ended(pool: _Pool, ref: Any, queue: deque[Any]) -> Iterator[Done[Any, Any]]:
    import ray
    from ray.exceptions import RayError

    actor, item = pool.running.pop(ref)
    try:
        yield ray.get(ref)
        return
    except RayError as error:
        pool.bury(actor)
        deaths = pool.deaths[item] = pool.deaths.get(item, 0) + 1
        log.warning("a worker died over %s (%d of %d): %s", item, deaths, ATTEMPTS, _brief(error))
        if deaths < ATTEMPTS:
            queue.append(item)
            return
        death = ModelError(f"{item} killed {ATTEMPTS} workers; the last: {_brief(error)}")
    yield Done(item, error=death)


def _brief(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _fit(resources: Resources) -> int:
    """How many workers the cluster can hold; at least one, or ConfigError saying what is there."""
    import ray

    there = ray.cluster_resources()
    cpus, gpus = there.get("CPU", 0.0), there.get("GPU", 0.0)
    room = int(min(cpus // resources.cpus, gpus // resources.gpus if resources.gpus else float("inf")))
    if room < 1:
        raise ConfigError(
            f"one worker needs {resources.cpus:g} CPUs and {resources.gpus:g} GPUs, "
            f"the whole cluster has {cpus:g} and {gpus:g}"
        )
    wanted = resources.workers or room
    if wanted > room:
        log.warning("%d workers asked, the cluster has room for %d", wanted, room)
    return min(wanted, room)


def _stall(pool: _Pool, queue: deque[Any]) -> str:
    import ray

    doing = ", ".join(str(item) for _, item in list(pool.running.values())[:4]) or "nothing"
    free = ray.available_resources()
    return (
        f"nothing ended for {STALL_SECONDS:.0f} s: {len(pool.actors)} workers ready, {len(pool.starting)} waiting "
        f"to start (free: {free.get('CPU', 0):g} CPUs, {free.get('GPU', 0):g} GPUs), "
        f"{len(queue)} shards queued, in work: {doing}"
    )


@contextmanager
def _connected(address: str | None) -> Iterator[None]:
    """A connection to the cluster at `address`, or a local one; one that is there already is used and kept."""
    import ray

    if ray.is_initialized():
        yield
        return
    try:
        if address is None:
            ray.init(include_dashboard=False, logging_level="warning", log_to_driver=False)
        else:
            ray.init(address=address, logging_level="warning", log_to_driver=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConfigError(f"cannot reach the Ray cluster at {address}: {_brief(error)}") from error
    try:
        yield
    finally:
        ray.shutdown()


def to_ray_dataset(files: Sequence[str]) -> Any:
    """The Parquet files of a feature set as a Ray Dataset."""
    import ray.data

    return ray.data.read_parquet(list(files))
