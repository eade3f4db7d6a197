"""What runs in a worker's process: the setup once, then items, in `IN_FLIGHT` threads."""

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmdata.cluster import Done, allow_threads, attempt
from mmdata.cluster.vigil import Overdue, overdue
from mmdata.errors import MMDataError

WATCH = "watch"  # the thread that answers while the others work


@dataclass(frozen=True, slots=True)
class Ready:
    """What a worker says when it is set up, or is not: its error."""

    error: Exception | None
    node: str
    kills: int  # processes that the kernel of its machine had killed for memory


class Actor:
    """A worker."""

    def __init__(self, setup: Callable[[], Any], work: Callable[[Any, Any], Any], cpus: float) -> None:
        self.setup = setup
        self.work = work
        allow_threads(max(1, int(cpus)))

    def ready(self) -> Ready:
        """Set up."""
        import ray

        done = attempt("setup", self.setup)
        self.state = done.result
        gc.collect()
        gc.freeze()  # as in a run without Ray, but for good
        return Ready(portable(done.error), ray.get_runtime_context().get_node_id(), memory_kills())

    def run(self, item: Any, times: int, seconds: float) -> Done[Any, Any]:
        """Do an item so many times, each of which takes so many seconds at least; the last outcome."""
        for _ in range(times):
            since = time.monotonic()
            done = attempt(item, self.work, self.state, item)
            time.sleep(max(0.0, seconds - (time.monotonic() - since)))
        return replace(done, error=portable(done.error))

    def overdue(self, limit: float) -> Overdue | None:
        """What has been in work for more than `limit` seconds."""
        return overdue(limit)


def portable(error: Exception | None) -> Exception | None:
    """An error that the driver can load."""
    if error is None or isinstance(error, MMDataError) or type(error).__module__ == "builtins":
        return error
    return MMDataError(repr(error))


def memory_kills() -> int:
    """Processes of this machine that its kernel killed because memory ran out, where the kernel tells; else 0."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
