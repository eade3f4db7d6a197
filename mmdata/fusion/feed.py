"""Batches of a pack on a device: kept there whole where it fits, else streamed, the next batch while this one trains.

Nothing here runs Python once a sample: a batch is a few `index_select`s.
"""

import os
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmdata.fusion.pack import Input, Pack

SHARE = 0.6  # of the free memory that resident features may take
AHEAD = 2  # batches gathered before they are asked for
BLOCK = 4096  # neighbouring rows that a streamed epoch reads together
WINDOW = 16  # blocks that are shuffled into each other

Inputs = dict[str, tuple[Tensor, Tensor]]
"""For each input its vectors and what is there of them: `(n, dim)` and `(n,)` bool, or `(n, t, dim)` and `(n, t)`."""


class Where(StrEnum):
    """Where the features are while a head trains."""

    RESIDENT = "resident"
    STREAMED = "streamed"


@dataclass(frozen=True, slots=True)
class Plan:
    """Where the features are kept, and why."""

    where: Where
    why: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of a pack: `inputs` as a model takes them, and the targets of each task that has any."""

    rows: Tensor  # (n,) int64
    inputs: Inputs
    targets: dict[str, Tensor]
    share: float = 1.0  # of its loss in the mean over a crew: how much more than an even part of the rows it has


def plan(nbytes: int, device: str, free: int | None = None) -> Plan:
    """Resident when `nbytes` are at most 60% of the free memory of the device, else streamed."""
    free = _free(device) if free is None else free
    fits = nbytes <= SHARE * free
    sizes = f"{nbytes / 2**20:.1f} MiB of features, {free / 2**20:.0f} MiB free on {device}"
    return Plan(Where.RESIDENT if fits else Where.STREAMED, f"{sizes}, of which {SHARE:.0%} may be taken")


def _free(device: str) -> int:
    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(device)[0])
    about = Path("/proc/meminfo")
    if about.exists():
        kib = next(line for line in about.read_text().splitlines() if line.startswith("MemAvailable")).split()[1]
        return int(kib) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


class Feed:
    """A pack, and the targets of its rows, as batches on `device`."""

    def __init__(self, pack: Pack, targets: Mapping[str, Tensor], plan: Plan, device: str = "cpu") -> None:
        self.device, self.plan, self.size = device, plan, len(pack)
        self.cards = {name: one.card for name, one in pack.inputs.items() if not one.tokens}
        resident = plan.where is Where.RESIDENT
        self._home = device if resident else "cpu"  # where rows are gathered
        self._inputs = {name: _Columns(one, self._home, resident) for name, one in pack.inputs.items()}
        self._targets = {name: target.to(self._home) for name, target in targets.items()}

    def batch(self, rows: Tensor) -> Batch:
        """The rows, in that order, on the device."""
        at = rows.to(self._home)
        inputs = {name: columns.gather(at) for name, columns in self._inputs.items()}
        targets = {name: target.index_select(0, at) for name, target in self._targets.items()}
        if self._home == self.device:
            return Batch(at, inputs, targets)
        moved = {name: (_move(x, self.device), _move(mask, self.device)) for name, (x, mask) in inputs.items()}
        return Batch(at, moved, {name: _move(target, self.device) for name, target in targets.items()})

    def target(self, name: str, rows: Tensor) -> NDArray[Any]:
        """The targets of some rows as an array."""
        return self._targets[name].index_select(0, rows.to(self._home)).cpu().numpy()

    def batches(self, order: Tensor, size: int, crew: tuple[int, int] = (0, 1)) -> Iterator[Batch]:
        """Batches of `size` rows, the last one smaller. Streamed ones are gathered in a thread, ahead.

        Of a `crew`, (rank, how many), each takes every so many-th row of a batch.
        """
        if not len(order):  # an epoch that was entered at its end
            return
        pieces = [_part(rows, *crew) for rows in torch.split(order, size)]
        if self.plan.where is Where.RESIDENT:
            for rows, share in pieces:
                yield replace(self.batch(rows), share=share)
            return
        with ThreadPoolExecutor(1) as pool:
            waiting: deque[tuple[Future[Batch], float]] = deque()
            for rows, share in pieces:
                waiting.append((pool.submit(self.batch, rows), share))
                if len(waiting) > AHEAD:
                    future, own = waiting.popleft()
                    yield replace(future.result(), share=own)
            for future, own in waiting:
                yield replace(future.result(), share=own)

    def shuffled(self, rows: Tensor, seed: int, epoch: int, start: int = 0) -> Tensor:
        """The order of an epoch, from its `start`-th row: of seed and epoch alone, so a resumed run has the same.

        A streamed epoch shuffles blocks of neighbouring rows, and the rows of 16 blocks with each other.
        """
        random = np.random.default_rng([seed, epoch])
        if self.plan.where is Where.RESIDENT or len(rows) <= BLOCK:
            return rows[torch.from_numpy(random.permutation(len(rows)))][start:]
        blocks = torch.split(rows, BLOCK)
        mixed = [blocks[i] for i in random.permutation(len(blocks))]
        windows = [torch.cat(mixed[i : i + WINDOW]) for i in range(0, len(mixed), WINDOW)]
        return torch.cat([rows[torch.from_numpy(random.permutation(len(rows)))] for rows in windows])[start:]


def _part(rows: Tensor, rank: int, size: int) -> tuple[Tensor, float]:
    """The rows of one of a crew and its share; of fewer rows than the crew has members all take all."""
    mine = rows[rank::size] if len(rows) >= size else rows
    return mine, (len(mine) * size / len(rows) if len(rows) >= size else 1.0)


class _Columns:
    """One input on the device where it is gathered."""

    def __init__(self, source: Input, home: str, resident: bool) -> None:
        # a copy where it is resident: a page of the map could be dropped and read again at any time
        self.values = torch.from_numpy(np.array(source.values) if resident else source.values).to(home)
        self.starts, self.lengths = (torch.from_numpy(a).to(home) for a in (source.starts, source.lengths))
        self.tokens = source.tokens

    def gather(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        starts, lengths = self.starts.index_select(0, rows), self.lengths.index_select(0, rows)
        if not len(self.values):
            return self.values.new_zeros(len(rows), self.values.shape[1]), lengths > 0
        if not self.tokens:
            return self.values.index_select(0, starts), lengths > 0
        places = torch.arange(max(int(lengths.max()), 1) if len(rows) else 1, device=rows.device)
        mask = places < lengths[:, None]
        index = torch.where(mask, starts[:, None] + places, 0)
        found = self.values.index_select(0, index.flatten())
        return found.view(*index.shape, -1), mask


def _move(tensor: Tensor, device: str) -> Tensor:
    return tensor.pin_memory().to(device, non_blocking=True) if device.startswith("cuda") else tensor
