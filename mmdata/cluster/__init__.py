"""Run the same work over many items: in this process, or on Ray actors. No other package imports ray.

The unit of work, retry and resume is the item (a shard's name). Each worker is set up once, so a model is
loaded once a worker, and has two items in flight, so the next shard is read while this one is encoded. Only
items and results cross Ray; bytes go from storage to worker to storage.

`task.py` is a shard on its way and the search for a sample that kills, `vigil.py` what a process has in work,
`here.py` the run in this process; `worker.py` what runs in a worker, `pool.py` the workers as the driver sees them,
`actors.py` the driver's loop, `connect.py` the cluster, `metrics.py` what it exports.
"""

import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from mmdata.cluster.task import Task
from mmdata.cluster.vigil import in_work
from mmdata.errors import MMDataError, ModelError, WorkerDied

__all__ = ["Done", "Limits", "Resources", "Task", "WorkerDied", "in_work", "run", "threads"]

Item = TypeVar("Item")
Result = TypeVar("Result")
State = TypeVar("State")

IN_FLIGHT = 2
STALL_SECONDS = 60.0
LOOK_EVERY = 5.0  # seconds between two looks at what is in work, at most
log = logging.getLogger(__name__)
_ends: list[ExitStack] = []
_allowed: list[int] = []


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds. What takes longer is left out (a sample), tried sample by sample (a shard), given up (a cluster)."""

    sample: float = 600.0  # that one sample, or one batch, may be in work
    shard: float | None = None
    nodes: float = 0.0  # to wait for a first node that can hold a worker


@dataclass(frozen=True, slots=True)
class Resources:
    """`workers=0` means this process, without Ray; None fits the pool to the cluster."""

    workers: int | None = 0
    cpus: float = 1.0  # of one worker
    gpus: float = 0.0  # of one worker
    address: str | None = None
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class Done(Generic[Item, Result]):
    """An item with its result, or with the error that ended it."""

    item: Item
    result: Result | None = None
    error: Exception | None = None


def default_resources(
    workers: int | None, cpus: float | None, gpus: float, address: str | None, limits: Limits | None = None
) -> Resources:
    """Without a cluster and without `workers`: this process. CPUs a worker default to an even share."""
    address = address or os.environ.get("RAY_ADDRESS") or None
    if workers is None and address is None:
        workers = 0
    share = max(1.0, _cores() / workers) if workers and address is None else 1.0
    return Resources(workers, cpus or float(int(share)), gpus, address, limits or Limits())


def run(
    setup: Callable[[], State],
    work: Callable[[State, Item], Result],
    items: Sequence[Item],
    resources: Resources,
    ready: Callable[[], None] = lambda: None,
    samples: Callable[[Item], Sequence[int]] | None = None,
    name: str = "run",
) -> Iterator[Done[Item, Result]]:
    """Yield each item's outcome as it ends. One that fails or kills its worker never stops the others.

    `setup` runs once a worker, and `ready` is called here whenever one is set up; when `setup` fails the run
    fails at once, with its error. Where items are `Task`s and `samples` tells the ids in one, a sample that kills
    its workers, or hangs, is found and left out (`Task.without`); in this process a hang ends the run and a crash
    ends the process. Work over `Task(only=())` is done, too, with nothing to show for it. An item that is given up
    since its workers die ends with WorkerDied. Raises ConfigError when the cluster can never place a worker,
    ModelError when workers die before one was ever set up, or when a sample hangs in this process, WorkerDied when
    they keep dying later. Where nothing ends for `STALL_SECONDS`, a warning begins with `name` and says what waits
    for what.
    """
    if not items:
        return
    if resources.workers == 0:
        from mmdata.cluster.here import run_here

        yield from run_here(setup, work, items, resources.limits, ready, name)
    else:
        from mmdata.cluster.actors import run_on_ray

        yield from run_on_ray(setup, work, items, resources, ready, samples, name)


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


def disconnect() -> None:
    """Let go of the cluster, and end a Ray of our own with all its workers; nothing where there is none."""
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        ray.shutdown()


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


def to_ray_dataset(files: Sequence[str]) -> Any:
    """The Parquet files of a feature set as a Ray Dataset."""
    import ray.data

    return ray.data.read_parquet(list(files))
