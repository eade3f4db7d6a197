"""Workers that die by chance, as on machines that are taken away: `python benchmarks/storms.py [CHANCE ...]`.

1,000 samples in ten shards on two Ray workers. Every call (a shard, a trial, a control) is ended by a SIGKILL with the
probability CHANCE, whatever it holds; in the second row of each CHANCE sample 777 does it, too. Counted: healthy
samples left out, which must be none, whether the one that kills was found, shards given up, workers that died.
"""

import logging
import os
import random
import signal
import sys
import time
from functools import partial

from mmdata.cluster import Resources, Task, in_work, run
from mmdata.errors import WorkerDied

SAMPLES, SHARDS = 1000, 10
KILLER = 777
CHANCES = (0.05, 0.2, 0.4)
IN_ONE = SAMPLES // SHARDS


def main() -> None:
    logging.getLogger("mmdata").propagate = False  # deaths are counted, not printed
    for chance in [float(word) for word in sys.argv[1:]] or CHANCES:
        for killer in (None, KILLER):
            print(storm(chance, killer), flush=True)


def storm(chance: float, killer: int | None) -> str:
    deaths = Deaths()
    logging.getLogger("mmdata").addHandler(deaths)
    since, left_out, given_up = time.monotonic(), list[int](), 0
    tasks = [Task(f"{number:06d}") for number in range(SHARDS)]
    for ended in run(nothing, partial(work, chance, killer), tasks, Resources(workers=2), samples=ids, name="storm"):
        if isinstance(ended.error, WorkerDied):
            given_up += 1
        elif ended.error is not None:
            raise ended.error
        left_out += ended.result or []
    logging.getLogger("mmdata").removeHandler(deaths)
    healthy = [sample for sample in left_out if sample != killer]
    found = "" if killer is None else f", the one that kills {'found' if killer in left_out else 'not found'}"
    return (
        f"{chance:.0%} of all calls die: {deaths.count} workers died; {len(healthy)} healthy samples left out{found}; "
        f"{SHARDS - given_up} shards done, {given_up} given up; {time.monotonic() - since:.0f} s"
    )


class Deaths(logging.Handler):
    """Counts what the driver says of them."""

    count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += record.getMessage().startswith("a worker died over")


def ids(task: Task) -> range:
    return range(int(task.shard) * IN_ONE, (int(task.shard) + 1) * IN_ONE)


def nothing() -> None:
    pass


def work(chance: float, killer: int | None, state: None, task: Task) -> list[int]:
    """What a shard leaves out."""
    if random.SystemRandom().random() < chance:
        os.kill(os.getpid(), signal.SIGKILL)
    for sample in ids(task) if task.only is None else task.only:
        with in_work(task.shard, sample):
            if sample == killer and sample not in task.without:
                os.kill(os.getpid(), signal.SIGKILL)
    return list(task.without) if task.only is None else []


if __name__ == "__main__":
    main()
