"""Run the same work over many items: in this process, or on Ray actors. No other package imports ray.

The unit of work, retry and resume is the item (a shard's name). Each worker is set up once, so a model is
loaded once a worker, and has two items in flight, so the next shard is read while this one is encoded. Only
items and results cross Ray; bytes go from storage to worker to storage.
"""

import logging
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from mmdata.errors import MMDataError, ModelError

Item = TypeVar("Item")
Result = TypeVar("Result")
State = TypeVar("State")

IN_FLIGHT = 2
log = logging.getLogger(__name__)
_ends: list[ExitStack] = []
_allowed: list[int] = []


class WorkerDied(ModelError):
    """An item that killed every worker that took it."""


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
    share = max(1.0, _cores() / workers) if workers and address is None else 1.0
    return Resources(workers, cpus or float(int(share)), gpus, address)


def run(
    setup: Callable[[], State],
    work: Callable[[State, Item], Result],
    items: Sequence[Item],
    resources: Resources,
    ready: Callable[[], None] = lambda: None,
) -> Iterator[Done[Item, Result]]:
    """Yield each item's outcome as it ends. One that fails or kills its worker never stops the others.

    `setup` runs once a worker, and `ready` is called here whenever one is set up; when `setup` fails the run
    fails at once, with its error. Raises ConfigError when the cluster can never place a worker, ModelError when
    workers keep dying before they are set up.
    """
    if not items:
        return
    if resources.workers == 0:
        yield from _run_here(setup, work, items, ready)
    else:
        from mmdata.cluster.actors import run_on_ray

        yield from run_on_ray(setup, work, items, resources, ready)


def run_together(work: Callable[[], None], resources: Resources) -> None:
    """Call `work` in each of some processes that torch.distributed joins; see `mmdata.cluster.together`."""
    from mmdata.cluster import together

    together.run_together(work, resources)


@contextmanager
def one_connection() -> Iterator[None]:
    """Inside it, the first run that needs Ray connects, and the later ones find it connected."""
    with ExitStack() as end:
        _ends.append(end)
        try:
            yield
        finally:
            _ends.remove(end)


def kept_until() -> ExitStack | None:
    """Where to leave what ends with `one_connection`; None outside it."""
    return _ends[0] if _ends else None


def threads() -> int:
    """CPU threads that this worker may use: those of the CPUs Ray gave it, in any other process one a core."""
    return _allowed[-1] if _allowed else _cores()


def _cores() -> int:
    """Those that this process may run on, where the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def allow_threads(count: int) -> None:
    """Said once, at the beginning of a worker's process."""
    _allowed.append(count)


def attempt(item: Item, call: Callable[..., Result], *arguments: Any) -> Done[Item, Result]:
    """Call, and make an outcome of whatever comes of it."""
    try:
        return Done(item, call(*arguments))
    except Exception as error:  # the one place that turns any failure of a shard into an outcome
        if not isinstance(error, MMDataError) and not sys.is_finalizing():
            log.exception("%s failed", item)
        return Done(item, error=error)


def setup_error(error: Exception) -> MMDataError:
    """What a run ends with when its setup failed."""
    if isinstance(error, MMDataError):
        return error
    problem = ModelError(f"a worker could not be set up: {type(error).__name__}: {error}")
    problem.__cause__ = error
    return problem


def _run_here(
    setup: Callable[[], State],
    work: Callable[[State, Item], Result],
    items: Sequence[Item],
    ready: Callable[[], None],
) -> Iterator[Done[Item, Result]]:
    state = attempt("setup", setup)
    if state.error is not None:
        raise setup_error(state.error)
    ready()
    queue = deque(items)
    pool = ThreadPoolExecutor(IN_FLIGHT)
    flying: set[Future[Done[Item, Result]]] = set()
    try:
        while queue or flying:
            while queue and len(flying) < IN_FLIGHT:
                item = queue.popleft()
                flying.add(pool.submit(attempt, item, work, state.result, item))
            ended, flying = wait(flying, return_when=FIRST_COMPLETED)
            for future in ended:
                yield future.result()
    finally:  # who presses Ctrl-C does not wait for the shards in work
        pool.shutdown(wait=not isinstance(sys.exception(), KeyboardInterrupt), cancel_futures=True)


def to_ray_dataset(files: Sequence[str]) -> Any:
    """The Parquet files of a feature set as a Ray Dataset."""
    import ray.data

    return ray.data.read_parquet(list(files))
