"""A shard on its way to a worker, and the search for the sample in it that its workers die over."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mmdata.types import Reason

ATTEMPTS = 3  # workers that may die over an item that cannot be divided
PROVEN = 2  # over one that can: the first death may be a neighbour's doing, the second is not
TOGETHER = 32  # samples that are tried together first
MOST_LOST = 20  # samples of one shard; where more are lost, it is not the samples
ROUNDS = 2  # in which every sample may turn out to be innocent
TOLD = {
    Reason.CRASH: "it ends the process that reads it",
    Reason.OOM: "the process that reads it runs out of memory",
    Reason.TIMEOUT: "it takes more than the time limit",
}


@dataclass(frozen=True, slots=True)
class Task:
    """A shard as a worker gets it: without some samples, or some samples only, and then nothing is written."""

    shard: str
    without: Mapping[int, Reason] = field(default_factory=dict)  # by id: what becomes of them
    only: tuple[int, ...] | None = None  # ids

    def __str__(self) -> str:
        return self.shard

    def told(self, sample: int) -> str:
        """Why a sample of `without` is left out, for people."""
        return TOLD[self.without[sample]]


@dataclass(eq=False)
class Order:
    """An item that is to be done, and what its workers' deaths have told.

    One that cannot be divided is given up after `ATTEMPTS` deaths. A `Task` whose `samples` are known is tried in
    parts after `PROVEN` deaths: `TOGETHER` samples a trial, and one by one those of a trial that killed its worker.
    A sample that does it twice in a row is lost, for a worker may always die by chance; the shard is then done
    without it. A thousand samples with one such: 5 deaths and 65 trials.
    """

    item: Any
    samples: Callable[[Any], Sequence[int]] | None = None
    deaths: int = 0  # since the last thing that was learned
    nodes: int = 0  # that went while it was in work there
    rounds: int = 0  # of trials that found nothing
    lost: dict[int, Reason] = field(default_factory=dict)
    trials: deque[tuple[int, ...]] = field(default_factory=deque)
    accused: tuple[int, ...] = ()
    before: int = 0  # samples lost when the trials began
    last: str = ""  # what was said of the last death

    @property
    def suspect(self) -> bool:
        """Whether it is to be alone in its worker."""
        return self.deaths > 0 or self.rounds > 0 or bool(self.lost) or bool(self.trials)

    @property
    def hopeless(self) -> bool:
        """Whether it is to be given up."""
        if self.samples is None:
            return self.deaths >= ATTEMPTS
        return self.rounds >= ROUNDS or len(self.lost) > MOST_LOST

    @property
    def call(self) -> Any:
        """What its worker gets next."""
        if self.trials:
            return replace(self.item, only=self.trials[0])
        return replace(self.item, without=dict(self.lost)) if self.lost else self.item

    def __str__(self) -> str:
        if not self.trials:
            return str(self.item)
        one, many = f"sample {self.trials[0][0]}", f"{len(self.trials[0])} samples"
        return f"{one if len(self.trials[0]) == 1 else many} of {self.item}, on trial"

    def passed(self) -> None:
        """A worker has lived through a trial."""
        self.trials.popleft()
        self._end_of_trials()

    def died(self, reason: Reason) -> None:
        """A worker has died over it."""
        self.deaths += 1
        if self.trials:
            self._convict(reason)
        elif self.samples is not None and (self.deaths >= PROVEN or reason is Reason.TIMEOUT):
            self._start_trials(self.samples)

    def late(self, sample: int) -> None:
        """One sample has been in work for too long."""
        self.lost[sample] = Reason.TIMEOUT
        if self.trials:
            rest = tuple(other for other in self.trials.popleft() if other != sample)
            self.trials.extendleft([rest] if rest else [])
            self._end_of_trials()

    def _start_trials(self, samples: Callable[[Any], Sequence[int]]) -> None:
        ids = [sample for sample in samples(self.item) if sample not in self.lost]
        self.trials = deque(tuple(ids[n : n + TOGETHER]) for n in range(0, len(ids), TOGETHER))
        self.before = len(self.lost)

    def _convict(self, reason: Reason) -> None:
        tried = self.trials.popleft()
        if len(tried) > 1:
            self.trials.extendleft((sample,) for sample in reversed(tried))
        elif self.accused != tried:
            self.accused = tried
            self.trials.appendleft(tried)
        else:
            self.lost[tried[0]] = reason
            self._end_of_trials()

    def _end_of_trials(self) -> None:
        if not self.trials:
            self.deaths, self.accused = 0, ()
            self.rounds = 0 if len(self.lost) > self.before else self.rounds + 1
