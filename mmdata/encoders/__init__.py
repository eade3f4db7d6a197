"""Frozen models from one modality to vectors, behind one protocol."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import orjson
from numpy.typing import NDArray

from mmdata.encoders.families import absolute, find, is_of_mmdata, short
from mmdata.errors import ConfigError, MMDataError, ModelError, told
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
    """A module, or a class whose constructor is `load`: `describe` finds out what a spec means, `load` builds it."""

    def describe(self, name: str, tower: str, request: Request) -> EncoderCard:
        """The card, if it can be had without building the model then without importing torch.

        What it leaves empty is completed from the request and the spec.
        """

    def load(self, card: EncoderCard, device: str) -> Encoder:
        """The encoder of a card, on a torch device."""


def describe(spec: str, request: Request = Request()) -> EncoderCard:
    """The card of an encoder, by spec: `[NAME=]FAMILY:MODEL[#TOWER]`, or a starter's bare name.

    Raises ConfigError for a spec that is none, for a tower and for tokens that an encoder has not, ModelError for a
    model that cannot be found.
    """
    given, asked = _named(spec)
    rest = absolute(asked)
    family, name, tower = find(rest)
    card = _told_by(family, asked, (name, tower, request))
    if tower and tower != card.modality:
        raise ConfigError(f"{_body(asked)} is of {card.modality} alone, it has no tower for {tower}")
    if request.tokens and not card.token_dim:
        raise ConfigError(f"{asked} has no token vectors; leave --tokens out, or leave this encoder out")
    alone = is_of_mmdata(rest) and len(card.towers) < 2
    spec = card.spec or (_body(rest) if alone else rest)
    return replace(
        card,
        name=given or _folder_name(asked if "#" in spec else _body(asked)),
        spec=spec,
        dtype=request.dtype,
        precision=card.precision or request.precision,
        space=card.space or f"{spec}@{(card.weights_sha256 or card.revision)[:12]}",
        preprocessing=card.preprocessing | _decoding(card, request),
        towers=card.towers or {card.modality.value: spec},
        tokens=request.tokens,
        token_dim=card.token_dim if request.tokens else 0,
    )


def _named(spec: str) -> tuple[str, str]:
    """The NAME of `NAME=SPEC`, or "", and the rest."""
    name, equals, rest = spec.partition("=")
    if not equals or ":" in name:  # FAMILY:MODEL, whose path may have an =
        return "", spec
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise ConfigError(
            f"{name!r} cannot name features: it may have letters, digits, _, - and ., the last two not first"
        )
    return name, rest


def _body(spec: str) -> str:
    """A spec without its tower."""
    return spec.partition("#")[0]


def _told_by(family: Any, spec: str, asked: tuple[str, str, Request]) -> EncoderCard:
    try:
        card: EncoderCard = family.describe(*asked)
    except MMDataError:
        raise
    except Exception as error:
        raise ModelError(f"{spec} cannot be described: {told(error)}") from error
    if not isinstance(card, EncoderCard):
        raise ModelError(f"{spec}: describe gave {card!r:.100}; an EncoderCard is due")
    if not isinstance(card.dim, int) or card.dim < 1:
        raise ModelError(f"{spec}: the dim of its card is {card.dim!r:.100}; an int of 1 at least is due")
    if not isinstance(card.modality, Modality):
        raise ModelError(f"{spec}: the modality of its card is {card.modality!r:.100}; a mmdata.types.Modality is due")
    if not _is_json(card.preprocessing):
        raise ModelError(f"{spec}: the preprocessing of its card is {card.preprocessing!r:.200}; plain JSON is due")
    return card


def _is_json(facts: dict[str, Any]) -> bool:
    """Whether it is read back as it was written, so that a card keeps its fingerprint."""
    try:
        return json.dumps(facts, sort_keys=True) == json.dumps(orjson.loads(orjson.dumps(facts)), sort_keys=True)
    except (TypeError, ValueError):
        return False


def _decoding(card: EncoderCard, request: Request) -> dict[str, Any]:
    asked = {"min_side": request.min_side, "background": request.background}
    usual = {"min_side": 0, "background": "#ffffff"}
    return {"decode": asked} if card.modality is Modality.IMAGE and asked != usual else {}


def decode_options(card: EncoderCard) -> dict[str, Any]:
    """The arguments of `mmdata.media.decode` that an encoder's inputs are decoded with, besides the data."""
    asked = card.preprocessing.get("decode")
    return {"min_side": asked["min_side"], "background": tuple(bytes.fromhex(asked["background"][1:]))} if asked else {}


def load_encoder(card: EncoderCard, device: str = "cpu") -> Encoder:
    """Build the encoder of a card. Raises ModelError when its weights are not the card's, or it breaks the protocol."""
    family, _, _ = find(card.spec)
    try:
        encoder: Encoder = family(card, device) if isinstance(family, type) else family.load(card, device)
    except Exception as error:  # not SystemExit, which is how a run is ended while it loads
        raise failed(card.spec, "cannot be loaded", error) from error
    if getattr(encoder, "card", None) != card:
        raise ModelError(f"{card.spec}: its card is not the one that it was given; set self.card = card")
    size: Any = getattr(encoder, "batch_size", None)
    if not isinstance(size, int) or size < 1:
        raise ModelError(f"{card.spec}: its batch_size is {size!r:.100}; an int of 1 at least is due")
    return encoder


def failed(spec: str, how: str, error: BaseException) -> ModelError:
    """An error of an encoder's own code as one that names the encoder, and the file and line."""
    if isinstance(error, ModelError) and (is_of_mmdata(spec) or spec in str(error)):
        return error
    return ModelError(f"{spec} {how}: {told(error)}")


def encode_one(encoder: Encoder, value: Any) -> NDArray[np.float32]:
    """One decoded part to `(1, dim) float32`, its windows pooled by their mean. Raises Rejected for one it refuses."""
    return encode_many(encoder, [encoder.prepare(value)])


def encode_many(encoder: Encoder, prepared: Sequence[Sequence[Prepared]]) -> NDArray[np.float32]:
    """n inputs with their windows to `(n, dim) float32`, n >= 1, the windows of each pooled by their mean."""
    inputs = [window for windows in prepared for window in windows]
    size = encoder.batch_size
    batches = [[window.data for window in inputs[first : first + size]] for first in range(0, len(inputs), size)]
    vectors = np.concatenate([encoder.encode(batch) for batch in batches])
    lengths = np.array([window.length for window in inputs])
    firsts = np.cumsum([0, *(len(windows) for windows in prepared[:-1])])
    return pool_windows(vectors, lengths, firsts, normalised=encoder.card.normalised)


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


def _folder_name(spec: str) -> str:
    body, _, tower = short(spec).partition("#")
    family, _, name = body.rpartition(":")
    path = Path(name)
    parts = [family.split(":")[0], path.name if path.is_absolute() else name, tower]
    return re.sub(r"[^A-Za-z0-9._]+", "-", "-".join(part for part in parts if part))
