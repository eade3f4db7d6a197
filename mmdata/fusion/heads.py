"""Heads on disk: safetensors and JSON, never pickle."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

import numpy as np
import orjson
from numpy.typing import NDArray
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from mmdata.crash import point
from mmdata.errors import ConfigError, Conflict, Damage, NotFound, conflict
from mmdata.fusion.pack import Pack
from mmdata.storage.dataset import Dataset, head_folder
from mmdata.storage.features import card_from_json, card_to_json
from mmdata.storage.sealed import proof, seal, unseal
from mmdata.storage.store import sha256
from mmdata.types import EncoderCard, Modality

AGAIN = "make it again: mmdata align or train ... --overwrite"
NO_HEADS = "none yet: run mmdata align or mmdata train, or take one with --head-from DATASET"
MODULES = {"cca": "mmdata.fusion.align", "fusion": "mmdata.fusion.trained"}
"""The module that takes a head's tensors to its towers, by kind of head."""

FUSED = "fused"
"""The output of all inputs together, of a head that aligns nothing."""


class Tower(Protocol):
    """One input of a head to its output space, `(n, dim_in)` to `(n, dim) float32`."""

    def project(self, features: NDArray[np.floating]) -> NDArray[np.float32]:
        """The output of these rows, computed from this input alone."""


@dataclass(frozen=True, slots=True)
class Head:
    """What `head.json` and `head.safetensors` say. `inputs` are the cards of the features it takes, by name."""

    name: str
    sha256: str
    kind: str  # one of MODULES
    inputs: dict[str, EncoderCard]
    outputs: dict[str, int]  # name of an input, or fused -> dimensions of what comes out for it
    made_from: dict[str, Any]  # fingerprints and options
    model: dict[str, Any]  # the architecture of a trained head
    tensors: dict[str, NDArray[Any]]

    @property
    def space(self) -> str:
        """Of all outputs of this head."""
        return f"head:{self.name}@{self.sha256[:12]}"

    def tower(self, name: str) -> Tower:
        """The tower of one input. NotFound when the head has no such input."""
        if name not in self.inputs:
            raise NotFound(f"the head {self.name!r} has no input {name!r}; there are: {', '.join(self.inputs)}")
        tower: Tower = self._module().tower(self, name)
        return tower

    def projector(self) -> Callable[[Pack], dict[str, NDArray[np.floating]]]:
        """What takes the rows of a pack to every output, `(n, dim)`; NaN where a row lacks what it is made of."""
        found: Callable[[Pack], dict[str, NDArray[np.floating]]] = self._module().projector(self)
        return found

    def _module(self) -> Any:
        return import_module(MODULES[self.kind])

    def card(self, output: str) -> EncoderCard:
        """The card of one output as a feature set."""
        bases = [self.inputs[output]] if output in self.inputs else list(self.inputs.values())
        return EncoderCard(
            name=f"{self.name}.{output}",
            spec=f"head:{self.name}#{output}",
            modality=min((base.modality for base in bases), key=list(Modality).index),  # whose part a hit shows
            dim=self.outputs[output],
            dtype="float16",
            precision="fp32",
            normalised=FUSED not in self.outputs,
            space=self.space,
            preprocessing={"features": {base.name: base.fingerprint for base in bases}},
            revision="local",
            weights_sha256=self.sha256,
            towers=self._query_towers(),
        )

    def output_card(self, name: str) -> EncoderCard:
        """The card of what comes out for input `name`."""
        return self.card(name if name in self.outputs else FUSED)

    def _query_towers(self) -> dict[str, str]:
        """Modality -> spec, of the inputs that a query can come through: one a modality, encoded by a real model."""
        modalities = [card.modality for card in self.inputs.values()]
        return {
            card.modality.value: f"head:{self.name}#{name}"
            for name, card in self.inputs.items()
            if modalities.count(card.modality) == 1 and (name in self.outputs or FUSED in self.outputs)
        }

    def check_input(self, name: str, card: EncoderCard) -> None:
        """Conflict, naming both, when `card` is not of the features that this head was made for."""
        if name not in self.inputs:
            raise ConfigError(f"the head {self.name!r} has no input {name!r}; there are: {', '.join(self.inputs)}")
        mine = self.inputs[name]
        if card.fingerprint != mine.fingerprint:
            raise Conflict(
                f"the input {name!r} of the head {self.name!r} takes {mine.spec!r} ({mine.fingerprint[:12]}), "
                f"not {card.spec!r} ({card.fingerprint[:12]})"
            )


def write_head(dataset: Dataset, head: Head, metrics: dict[str, Any], files: dict[str, bytes] | None = None) -> Head:
    """Write the tensors, the metrics, other `files` and, last, `head.json`, without which there is no head.

    `head.sha256` is set from the tensors. `head.json` proves all these, and the logs of trackers that are there.
    """
    folder = head_folder(head.name)
    data = save_tensors({name: np.ascontiguousarray(tensor) for name, tensor in head.tensors.items()})
    beside = {
        "head.safetensors": data,
        "metrics.json": seal(metrics),
        **(files or {}),
    }
    logs = {info.path.removeprefix(f"{folder}/"): info for info in dataset.store.list(f"{folder}/events")}
    facts = {
        "name": head.name,
        "sha256": sha256(data),
        "kind": head.kind,
        "inputs": {name: orjson.loads(card_to_json(card)) for name, card in head.inputs.items()},
        "outputs": head.outputs,
        "made_from": head.made_from,
        "model": head.model,
        "files": proof(beside | {name: dataset.store.read(info.path) for name, info in logs.items()}),
    }
    point("head.write")
    if dataset.store.info(f"{folder}/head.json"):
        dataset.store.delete(f"{folder}/head.json")
    for name, content in beside.items():
        dataset.store.replace(f"{folder}/{name}", content)
    point("head.files_written")
    dataset.store.replace(f"{folder}/head.json", seal(facts))
    point("head.written")
    return read_head(dataset, head.name)


def read_head(dataset: Dataset, name: str) -> Head:
    """NotFound when there is no such head, Damage when its tensors are not those that were written."""
    folder = head_folder(name)
    try:
        about = dataset.store.read(f"{folder}/head.json")
    except NotFound as error:
        there = ", ".join(dataset.names("heads")) or NO_HEADS
        raise NotFound(f"{dataset.url} has no head {name!r}; there are: {there}") from error
    data = dataset.store.read(f"{folder}/head.safetensors")
    where = dataset.store.where(folder)
    try:
        facts = unseal(about, f"{where}/head.json", AGAIN)
        del facts["files"]
        if sha256(data) != facts["sha256"]:
            raise Damage(f"{where}/head.safetensors is not the file that head.json names; {AGAIN}")
        cards = {name: card_from_json(orjson.dumps(card), where) for name, card in facts.pop("inputs").items()}
        return Head(inputs=cards, tensors=load_tensors(data), **facts)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damage(f"{where}/head.json does not describe a head: {error}; {AGAIN}") from error


def take_head(dataset: Dataset, name: str, source: str) -> Head:
    """The head of this name, copied from the dataset at `source` unless it is there. Conflict when another one is."""
    other = Dataset.open(source)
    head = read_head(other, name)
    try:
        mine = read_head(dataset, name)
    except NotFound:
        return write_head(dataset, head, read_metrics(other, name))
    if mine.sha256 != head.sha256:
        raise Conflict(f"{dataset.url} has another head {name!r} than {source}; train it there under another name")
    return mine


def find_head(dataset: Dataset, name: str, made_from: dict[str, Any]) -> Head | None:
    """The head of this name, None where there is none. Conflict when it was made from something else."""
    try:
        found = read_head(dataset, name)
    except NotFound:  # also where a killed run wrote the tensors and not yet head.json
        return None
    wanted = orjson.loads(orjson.dumps(made_from))
    if found.made_from != wanted:
        raise conflict(f"the head {name!r}", found.made_from, wanted, "choose another --name, or --overwrite")
    return found


def read_metrics(dataset: Dataset, name: str) -> dict[str, Any]:
    """What the report of a head says."""
    path = f"{head_folder(name)}/metrics.json"
    return unseal(dataset.store.read(path), dataset.store.where(path), AGAIN)
