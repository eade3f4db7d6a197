"""A run as one safetensors file: weights, best weights, balance, optimiser, and where it is."""

import time
from dataclasses import asdict
from typing import Any

import orjson
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from mmdata.errors import Damage, NotFound, conflict
from mmdata.fusion.train import Progress, Run
from mmdata.storage.store import Store

START_AGAIN = "choose another name, or --overwrite to start again"


class Checkpoints:
    """The checkpoint of one run, replaced every so many seconds; refused by a run that was asked something else."""

    def __init__(self, store: Store, path: str, made_from: dict[str, Any], every: float) -> None:
        self.store, self.path, self.made_from, self.every = store, path, made_from, every
        self._last = time.monotonic()

    def save(self, run: Run) -> None:
        """Write the run, if it is time, over the last checkpoint."""
        if time.monotonic() - self._last < self.every:
            return
        facts = {"progress": asdict(run.progress), "made_from": self.made_from}
        data = save(_tensors(run), {name: orjson.dumps(value).decode() for name, value in facts.items()})
        self.store.replace(self.path, data)
        self._last = time.monotonic()

    def load(self, run: Run) -> bool:
        """Raises Conflict, field by field, when the checkpoint is of a run that was asked something else."""
        try:
            data = self.store.read(self.path)
        except NotFound:
            return False
        facts, tensors = _read(data, self.store.where(self.path))
        if facts["made_from"] != orjson.loads(orjson.dumps(self.made_from)):
            raise conflict(self.store.where(self.path), facts["made_from"], self.made_from, START_AGAIN)
        _restore(run, tensors)
        run.progress = Progress(**facts["progress"])
        return True

    def delete(self) -> None:
        """When the head is written, nothing needs the checkpoint."""
        self.store.delete(self.path)


class ReadOnly:
    """Goes on from the checkpoints of another process, which writes them."""

    def __init__(self, keeper: Checkpoints) -> None:
        self.keeper = keeper

    def load(self, run: Run) -> bool:
        """As its keeper does."""
        return self.keeper.load(run)

    def save(self, run: Run) -> None:
        """Nothing."""


def _read(data: bytes, where: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        size = int.from_bytes(data[:8], "little")
        facts = {name: orjson.loads(text) for name, text in orjson.loads(data[8 : 8 + size])["__metadata__"].items()}
        return facts, load(data)
    except (ValueError, KeyError, SafetensorError) as error:
        raise Damage(f"{where} is no checkpoint: {error}; {START_AGAIN}") from error


def _tensors(run: Run) -> dict[str, Tensor]:
    found = {f"model.{name}": value for name, value in run.model.state_dict().items()}
    found |= {f"best.{name}": value for name, value in run.best.items()}
    found |= {f"balance.{name}": value for name, value in run.balance.state_dict().items()}
    for number, state in run.optimiser.state_dict()["state"].items():
        found |= {f"optimiser.{number}.{name}": value for name, value in state.items()}
    return {name: value.contiguous() for name, value in (found | {"sums": run.sums}).items()}


def _restore(run: Run, tensors: dict[str, Tensor]) -> None:
    def under(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

    run.model.load_state_dict(under("model."))
    run.balance.load_state_dict(under("balance."))
    run.best = {name: value.to(run.sums.device) for name, value in under("best.").items()}
    run.sums.copy_(tensors["sums"])
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in under("optimiser.").items():
        number, _, field = name.partition(".")
        state.setdefault(int(number), {})[field] = value
    run.optimiser.load_state_dict(run.optimiser.state_dict() | {"state": state})
