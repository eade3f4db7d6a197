"""A run in this process, without Ray."""

import gc
import logging
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from mmdata.cluster import (
    IN_FLIGHT,
    LOOK_EVERY,
    STALL_SECONDS,
    Done,
    Item,
    Limits,
    Result,
    State,
    attempt,
    setup_error,
)
from mmdata.cluster.vigil import Overdue, overdue
from mmdata.errors import ModelError

log = logging.getLogger(__name__)


def run_here(
    setup: Callable[[], State],
    work: Callable[[State, Item], Result],
    items: Sequence[Item],
    limits: Limits,
    ready: Callable[[], None],
    name: str,
) -> Iterator[Done[Item, Result]]:
    """`mmdata.cluster.run` in threads, `IN_FLIGHT` items at once."""
    state = attempt("setup", setup)
    if state.error is not None:
        raise setup_error(state.error)
    gc.freeze()  # what is loaded stays; to look through it for garbage again and again costs 2 % of a run
    ready()
    queue = deque(items)
    pool = ThreadPoolExecutor(IN_FLIGHT)
    flying: dict[Future[Done[Item, Result]], tuple[Item, float]] = {}
    done, moved = False, time.monotonic()
    try:
        while queue or flying:
            while queue and len(flying) < IN_FLIGHT:
                item = queue.popleft()
                flying[pool.submit(attempt, item, work, state.result, item)] = item, time.monotonic()
            ended, _ = wait(flying, min(LOOK_EVERY, limits.sample / 4), FIRST_COMPLETED)
            for future in ended:
                del flying[future]
                yield future.result()
                moved = time.monotonic()
            if not ended:
                _look(list(flying.values()), limits)
            if time.monotonic() - moved > STALL_SECONDS:
                moved = time.monotonic()
                doing = ", ".join(str(item) for item, _ in flying.values())
                told = name, STALL_SECONDS, len(queue), doing
                log.warning("%s: nothing ended for %g s: %d shards queued, in work: %s", *told)
        done = True
    finally:  # who stops a run does not wait for the shards in work
        gc.unfreeze()
        pool.shutdown(wait=done or isinstance(sys.exception(), GeneratorExit), cancel_futures=True)


def _look(flying: Sequence[tuple[Any, float]], limits: Limits) -> None:
    """ModelError when something hangs: no thread of this process can be stopped, a worker can."""
    remedy = "run the same command with --workers 1: a worker can be stopped, and the sample is left out"
    late = overdue(limits.sample)
    if late is not None:
        raise ModelError(
            f"shard {late.shard}: {_samples(late)} in work for {late.seconds:.0f} s, over --sample-timeout "
            f"{limits.sample:g}; {remedy}"
        )
    item, since = min(flying, key=lambda entry: entry[1])
    if limits.shard is not None and time.monotonic() - since > limits.shard:
        raise ModelError(f"{item} is in work for longer than --shard-timeout {limits.shard:g}; {remedy}")


def _samples(late: Overdue) -> str:
    return f"sample {late.samples[0]} is" if len(late.samples) == 1 else f"a batch of {len(late.samples)} samples is"
