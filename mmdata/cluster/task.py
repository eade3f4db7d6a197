"""A shard on its way to a worker, and the search for the sample in it that its workers die over."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from mmdata.types import Reason

ATTEMPTS = 3  # workers that may die over an item that cannot be divided
PROVEN = 2  # over one that can: the first death may be a neighbour's doing, the second is not
TOGETHER = 32  # samples that are tried together first
CONTROLS = 9  # times that a worker does the same without the sample, before the death over it counts
STRIKES = 4  # such deaths
LONGEST = 10.0  # seconds that one control takes at most
IN_VAIN = 30  # deaths in a row that teach nothing
NODES = 20  # machines that may go, as spot nodes do, while they have one item in work
MOST_LOST = 10  # samples of one shard; where more are lost, it is not the samples
ROUNDS = 3  # in which every sample may turn out to be innocent
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
    only: tuple[int, ...] | None = None  # ids; none of them is a control

    def __str__(self) -> str:
        return f"shard {self.shard}"

    def told(self, sample: int) -> str:
        """Why a sample of `without` is left out, for people."""
        return TOLD[self.without[sample]]


class Step(StrEnum):
    """Of the first trial: as it is; without its samples; and then with them, in the same worker."""

    TRY = "try"
    CONTROL = "control"
    STAND = "stand"


@dataclass(eq=False)
class Order:
    """An item that is to be done, and what its workers' deaths have told.

    One that cannot be divided is given up after `ATTEMPTS` deaths. A `Task` whose `samples` are known is tried in
    parts after `PROVEN` deaths: `TOGETHER` samples a trial, and one by one those of a trial that killed its worker.

    Any worker may die of something else, so that a death alone proves nothing. A trial over which one has died is
    done by another that first lives through `CONTROLS` controls: the shard with none of its samples, each as long as
    the first one lived. Only a death after those is a strike; one in a control is the machine's, and a trial that a
    worker lives through is innocent, whatever was before. Where a part of p of all calls dies by chance, a strike on
    an innocent has the chance q p / (1 - (1 - q) p), q = (1 - p) ** CONTROLS, which is 4.2 % at most, for p near 0.11.
    A group is divided at the first strike, a sample is lost at the fourth, after a death without controls: less than
    1 in 3 million. The shard is then done without it. A thousand samples with one that kills: 9 deaths and 77 calls.
    """

    item: Any
    samples: Callable[[Any], Sequence[int]] | None = None
    deaths: int = 0  # since the last thing that was learned
    nodes: int = 0  # that went while it was in work there
    rounds: int = 0  # of trials that found nothing
    lost: dict[int, Reason] = field(default_factory=dict)
    trials: deque[tuple[int, ...]] = field(default_factory=deque)
    step: Step = Step.TRY
    strikes: int = 0
    lived: float = 0.0  # seconds that a worker lived with the first trial, at most
    before: int = 0  # samples lost when the trials began
    last: str = ""  # what was said of the last death

    @property
    def suspect(self) -> bool:
        """Whether it is to be alone in its worker."""
        return self.deaths > 0 or self.rounds > 0 or bool(self.lost) or bool(self.trials)

    @property
    def at_stake(self) -> bool:
        """Whether the next death is a strike on a single sample."""
        return self.step is Step.STAND and len(self.trials[0]) == 1

    @property
    def call(self) -> tuple[Any, int, float]:
        """What its worker gets next, how often, and the seconds that each time takes at least."""
        if self.step is Step.CONTROL:
            return replace(self.item, only=()), CONTROLS, min(self.lived, LONGEST)
        if self.trials:
            return replace(self.item, only=self.trials[0]), 1, 0.0
        return replace(self.item, without=dict(self.lost)) if self.lost else self.item, 1, 0.0

    @property
    def given_up(self) -> str:
        """Why it is not tried any more; empty while it is."""
        last = f"; the last: {self.last}"
        if self.nodes > NODES or (self.samples is not None and self.deaths >= IN_VAIN):
            return f"workers keep dying, whatever they do, and {self.item} was never done{last}"
        if self.samples is None:
            return f"{self.item} killed {ATTEMPTS} workers{last}" if self.deaths >= ATTEMPTS else ""
        if self.rounds >= ROUNDS:
            return (
                f"{self.item} kills its workers, and none of its samples does so by itself{last}; give a worker more "
                "memory, make batches and shards smaller, or see whether workers are taken away before it can be done"
            )
        if len(self.lost) > MOST_LOST:
            return f"more than {MOST_LOST} samples of {self.item} kill or hang a worker, so it is not the samples{last}"
        return ""

    def __str__(self) -> str:
        if not self.trials:
            return str(self.item)
        one, many = f"sample {self.trials[0][0]}", f"{len(self.trials[0])} samples"
        who = one if len(self.trials[0]) == 1 else many
        return f"{self.item} without {who}" if self.step is Step.CONTROL else f"{who} of {self.item}, on trial"

    def passed(self) -> None:
        """A worker has lived through a trial, or through its controls: the same worker is to go on with it."""
        if self.step is Step.CONTROL:
            self.step = Step.STAND
        else:
            self.trials.popleft()
            self._next_trial()

    def gone(self) -> None:
        """Its worker went, or its machine, which says nothing of what it had in work."""
        self.nodes += 1
        self.step = Step.CONTROL if self.step is Step.STAND else self.step

    def died(self, reason: Reason, seconds: float = 0.0, certain: bool = False) -> None:
        """A worker has died over it, after so many seconds; `certain` when no other item can be the reason."""
        self.deaths += 1
        if not self.trials:
            if self.samples is not None and (self.deaths >= PROVEN or certain):
                self._start_trials(self.samples)
        elif self.step is Step.CONTROL:
            self.step = Step.TRY
        elif certain or self.step is Step.STAND:
            self._strike(reason, seconds)
        else:
            self.lived, self.step = seconds, Step.CONTROL

    def late(self, sample: int) -> None:
        """One sample has been in work for too long."""
        self.lost[sample] = Reason.TIMEOUT
        if self.trials:
            rest = tuple(other for other in self.trials.popleft() if other != sample)
            self.trials.extendleft([rest] if rest else [])
            self._next_trial()

    def _start_trials(self, samples: Callable[[Any], Sequence[int]]) -> None:
        ids = [sample for sample in samples(self.item) if sample not in self.lost]
        self.trials = deque(tuple(ids[n : n + TOGETHER]) for n in range(0, len(ids), TOGETHER))
        self.before = len(self.lost)
        self._next_trial()

    def _strike(self, reason: Reason, seconds: float) -> None:
        self.strikes += 1
        self.lived = max(self.lived, seconds)
        self.deaths, self.step = 0, Step.CONTROL
        tried = self.trials[0]
        if len(tried) > 1:
            self.trials.popleft()
            self.trials.extendleft((sample,) for sample in reversed(tried))
            self._next_trial()
        elif self.strikes >= STRIKES:
            self.trials.popleft()
            self.lost[tried[0]] = reason
            self._next_trial()

    def _next_trial(self) -> None:
        self.deaths, self.strikes, self.lived, self.step = 0, 0, 0.0, Step.TRY
        if not self.trials:
            self.rounds = 0 if len(self.lost) > self.before else self.rounds + 1
