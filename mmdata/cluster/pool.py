"""The workers of a run as the driver sees them, and the items that wait for them."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mmdata.cluster import IN_FLIGHT, LOOK_EVERY, Limits
from mmdata.cluster.task import Order, Step
from mmdata.cluster.vigil import Overdue
from mmdata.cluster.worker import WATCH


@dataclass(frozen=True, slots=True)
class Blame:
    """Why a worker was killed by the driver: an order that takes too long, and the samples it was seen with.

    No order: any of those in work may be the reason, or none.
    """

    order: Order | None
    samples: tuple[int, ...]
    why: str


@dataclass(eq=False)
class Worker:
    """An actor as the driver sees it."""

    actor: Any
    node: str = ""
    kills: int = 0  # of its machine for memory, when it was set up
    doing: dict[Any, tuple[Order, float]] = field(default_factory=dict)  # ref -> the order and since when
    asked: float = 0.0  # when it was last asked what is overdue
    question: Any = None  # the ref of an answer that is due
    blame: Blame | None = None


@dataclass
class Pool:
    """The workers of a run, and the items that wait for them.

    Whatever was in work when a worker died is a suspect from then on, and is done again alone in a worker: so
    only the first death may count against an item that had no part in it, and that one gives no item up.
    """

    name: str  # of the run
    start: Callable[[], Any]
    room: Callable[[], int]  # workers that there should be: of those asked, or that the cluster can hold now
    limits: Limits
    queue: deque[Order]
    size: int = 0
    fitted: float = 0.0  # when the size was last looked at
    suspects: deque[Order] = field(default_factory=deque)
    starting: dict[Any, Worker] = field(default_factory=dict)  # by ref
    workers: list[Worker] = field(default_factory=list)  # that are ready
    working: dict[Any, Worker] = field(default_factory=dict)  # by ref
    questions: dict[Any, Worker] = field(default_factory=dict)  # by ref
    failed_starts: int = 0  # in a row
    was_ready: bool = False  # any worker, ever

    @property
    def waiting(self) -> int:
        return len(self.queue) + len(self.suspects)

    @property
    def left(self) -> int:
        return self.waiting + len(self.working)

    @property
    def refs(self) -> list[Any]:
        return [*self.starting, *self.working, *self.questions]

    def fit(self) -> None:
        """Start workers where there is room for more, and let go of those that nothing waits for."""
        if time.monotonic() - self.fitted > LOOK_EVERY or not self.workers:
            self.size, self.fitted = self.room(), time.monotonic()
        while len(self.starting) + len(self.workers) < min(self.size, self.left):
            worker = Worker(self.start())
            self.starting[worker.actor.ready.remote()] = worker
        if not self.waiting:
            for ref, worker in list(self.starting.items()):
                del self.starting[ref]
                self.end(worker)
            for worker in [worker for worker in self.workers if not worker.doing]:
                self.end(worker)

    def feed(self) -> None:
        """Give every worker an item, and `IN_FLIGHT` while there are enough: the last go to who is free first."""
        for load in range(IN_FLIGHT):
            for worker in self.workers:
                if load and self.waiting < len(self.starting) + len(self.workers):
                    return
                if len(worker.doing) == load and (order := self._next_for(worker)) is not None:
                    self.give(worker, order)

    def give(self, worker: Worker, order: Order) -> None:
        """Let it do what is next of an order."""
        ref = worker.actor.run.remote(*order.call)
        worker.doing[ref] = order, time.monotonic()
        self.working[ref] = worker

    def _next_for(self, worker: Worker) -> Order | None:
        if self.suspects and not worker.doing:
            return self.suspects.popleft()
        alone = any(order.suspect for order, _ in worker.doing.values())
        return self.queue.popleft() if self.queue and not alone else None

    def look(self) -> None:
        """Ask every worker what is overdue; kill one that does not answer, or whose shard takes too long."""
        now, every = time.monotonic(), min(LOOK_EVERY, self.limits.sample / 4)
        for worker in [worker for worker in self.workers if worker.doing]:
            order, since = min(worker.doing.values(), key=lambda doing: doing[1])
            if self.limits.shard is not None and order.step is not Step.CONTROL and now - since > self.limits.shard:
                self.kill(worker, Blame(order, (), f"it took more than --shard-timeout {self.limits.shard:g} s"))
            elif worker.question is None and now - worker.asked > every:
                worker.asked = now
                worker.question = worker.actor.overdue.options(concurrency_group=WATCH).remote(self.limits.sample)
                self.questions[worker.question] = worker
            elif worker.question is not None and now - worker.asked > self.limits.sample + LOOK_EVERY:
                self.kill(worker, Blame(None, (), f"its worker did not answer for {now - worker.asked:.0f} s"))

    def answered(self, worker: Worker, late: Overdue | None) -> None:
        """Kill a worker in which something is overdue."""
        worker.question = None
        if late is None or worker.blame is not None:
            return
        for order, _ in worker.doing.values():
            if getattr(order.item, "shard", "") == late.shard:
                why = f"in work for {late.seconds:.0f} s, over --sample-timeout {self.limits.sample:g}"
                self.kill(worker, Blame(order, late.samples, why))
                return

    def kill(self, worker: Worker, blame: Blame) -> None:
        """Kill it; what it had in work ends as after any death, and the blame says whose doing it was."""
        worker.blame = blame
        self.end(worker)

    def end(self, worker: Worker) -> None:
        """Let go of a worker, dead or alive."""
        import ray

        if worker in self.workers:
            self.workers.remove(worker)
        self.questions.pop(worker.question, None)
        ray.kill(worker.actor)
