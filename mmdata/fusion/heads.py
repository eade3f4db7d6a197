"""Heads on disk: safetensors and JSON, never pickle."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from mmdata.errors import Damage, NotFound
from mmdata.fusion.align import Tower
from mmdata.storage.dataset import Dataset, head_folder
from mmdata.storage.features import card_from_json, card_to_json
from mmdata.storage.store import sha256
from mmdata.types import EncoderCard, Modality

AGAIN = "make it again: mmdata align ... --overwrite"
TENSORS = ("mean", "scale", "centre", "weight")


@dataclass(frozen=True, slots=True)
class Head:
    """A head with one tower a modality; `cards` are those of the encoders whose features it takes."""

    name: str
    sha256: str
    towers: dict[Modality, Tower]
    cards: dict[Modality, EncoderCard]
    inputs: dict[str, Any]  # what it was made from: features, their fingerprints, options

    def card(self, modality: Modality) -> EncoderCard:
        """The card of this head's output for one modality."""
        base = self.cards[modality]
        return EncoderCard(
            name=f"{self.name}.{modality}",
            spec=f"head:{self.name}#{modality}",
            modality=modality,
            dim=self.towers[modality].weight.shape[1],
            dtype="float16",
            precision="fp32",
            normalised=True,
            space=f"head:{self.name}@{self.sha256[:12]}",
            preprocessing={"features": base.name, "encoder": base.fingerprint},
            revision="local",
            weights_sha256=self.sha256,
            towers={m.value: f"head:{self.name}#{m}" for m in self.towers},
        )


def write_head(
    dataset: Dataset,
    name: str,
    towers: dict[Modality, Tower],
    cards: dict[Modality, EncoderCard],
    inputs: dict[str, Any],
    metrics: dict[str, Any],
) -> Head:
    """Write the tensors, the metrics and, last, `head.json`, without which there is no head."""
    folder = head_folder(name)
    tensors = {
        f"{modality}.{tensor}": np.ascontiguousarray(getattr(tower, tensor))
        for modality, tower in towers.items()
        for tensor in TENSORS
    }
    data = save_tensors(tensors)
    facts = {
        "name": name,
        "sha256": sha256(data),
        "towers": {modality.value: orjson.loads(card_to_json(card)) for modality, card in cards.items()},
        "inputs": inputs,
    }
    if dataset.store.info(f"{folder}/head.json"):
        dataset.store.delete(f"{folder}/head.json")
    dataset.store.replace(f"{folder}/head.safetensors", data)
    dataset.store.replace(f"{folder}/metrics.json", orjson.dumps(metrics, option=orjson.OPT_INDENT_2))
    dataset.store.replace(f"{folder}/head.json", orjson.dumps(facts, option=orjson.OPT_INDENT_2))
    return read_head(dataset, name)


def read_head(dataset: Dataset, name: str) -> Head:
    """NotFound when there is no such head, Damage when its tensors are not those that were written."""
    folder = head_folder(name)
    try:
        about = dataset.store.read(f"{folder}/head.json")
    except NotFound as error:
        there = ", ".join(dataset.names("heads")) or "none yet: run mmdata align"
        raise NotFound(f"{dataset.url} has no head {name!r}; there are: {there}") from error
    data = dataset.store.read(f"{folder}/head.safetensors")
    where = dataset.store.where(folder)
    try:
        facts = orjson.loads(about)
        if sha256(data) != facts["sha256"]:
            raise Damage(f"{where}/head.safetensors is not the file that head.json names; {AGAIN}")
        cards = {Modality(m): card_from_json(orjson.dumps(card), where) for m, card in facts["towers"].items()}
        inputs = facts["inputs"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damage(f"{where}/head.json does not describe a head: {error}; {AGAIN}") from error
    tensors = load_tensors(data)
    towers = {m: Tower(*(tensors[f"{m}.{tensor}"] for tensor in TENSORS)) for m in cards}
    return Head(name, facts["sha256"], towers, cards, inputs)


def read_metrics(dataset: Dataset, name: str) -> dict[str, Any]:
    """What the report of a head says."""
    metrics: dict[str, Any] = orjson.loads(dataset.store.read(f"{head_folder(name)}/metrics.json"))
    return metrics


def same_inputs(head: Head, inputs: dict[str, Any]) -> bool:
    """Whether a head was made from `inputs`."""
    return bool(head.inputs == orjson.loads(orjson.dumps(inputs)))
