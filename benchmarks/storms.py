"""Workers that die by chance, as where machines are taken away: `python benchmarks/storms.py [ray|dice] [CHANCE ...]`.

1,000 samples in ten shards on two Ray workers. Every call (a shard, a trial, a control) is ended by a SIGKILL with the
probability CHANCE, whatever it holds; in the second row of each CHANCE sample 777 does it, too. Counted: healthy
samples left out, which must be none, whether the one that kills was found, shards given up, workers that died. With
`dice` the deaths are drawn without Ray, for 1,000 shards of 1,000 samples each.
"""

import logging
import os
import random
import signal
import sys
import time
from functools import partial

from mmdata.cluster import Resources, Task, in_work, run
from mmdata.cluster.task import Order
from mmdata.errors import WorkerDied
from mmdata.types import Reason

SAMPLES, SHARDS, SHARDS_DRAWN = 1000, 10, 1000
KILLER = 777
CHANCES = (0.05, 0.2, 0.4)
IN_ONE = SAMPLES // SHARDS


def main() -> None:
    logging.getLogger("mmdata").propagate = False  # deaths are counted, not printed
    storm = drawn if "dice" in sys.argv else on_ray
    for chance in [float(word) for word in sys.argv[2:]] or CHANCES:
        for killer in (None, KILLER):
            print(storm(chance, killer), flush=True)


def drawn(chance: float, killer: int | None) -> str:
    dice = random.Random(0)  # noqa: S311  the same deaths in every run
    deaths = healthy = found = given_up = 0
    for _ in range(SHARDS_DRAWN):
        order, left = Order(Task("000000"), lambda task: range(SAMPLES)), True
        while left and not order.given_up:
            task, times, _ = order.call
            kills = killer is not None and killer not in task.without and (task.only is None or killer in task.only)
            died = kills or any(dice.random() < chance for _ in range(times))
            left, deaths = died or task.only is not None, deaths + died
            if died:
                order.died(Reason.CRASH)
            elif left:
                order.passed()
        healthy += len(order.lost.keys() - {killer})
        found, given_up = found + (killer in order.lost), given_up + bool(order.given_up)
    told = "" if killer is None else f", the one that kills found in {found}"
    return (
        f"{chance:.0%} of all calls die: {deaths / SHARDS_DRAWN:.1f} workers a shard died; {healthy} healthy samples "
        f"left out{told}; {SHARDS_DRAWN - given_up} shards done, {given_up} given up"
    )


def on_ray(chance: float, killer: int | None) -> str:
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
