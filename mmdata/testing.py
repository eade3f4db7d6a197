"""What every encoder is held to, ours and yours: `check_encoder(encoder, values)` in a test of your own."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmdata.encoders import Encoder, Prepared, TokenEncoder
from mmdata.types import Modality

SAME = {"fp32": 1e-5, "bf16": 5e-2, "fp16": 1e-2}
"""By precision, the largest difference of a component over the length of its vector: sums in another order."""
COSINE = {"fp32": 0.9999, "bf16": 0.999, "fp16": 0.999}
"""By precision, the least cosine with what the library itself gives."""
LENGTH = {"fp32": 2e-3, "bf16": 2e-2, "fp16": 2e-2}
"""By precision, the largest relative difference of a vector's length from the library's: PIL and torch resize pictures
to bytes that differ by 1 here and there."""

Vectors = NDArray[np.float32]


def check_encoder(encoder: Encoder, values: Sequence[Any], library: ArrayLike | None = None) -> None:
    """Hold an encoder to its contract on decoded parts, at least two and all different.

    An image is `(height, width, 3) uint8`, a sound a `mmdata.media.audio.Waveform`, a text a `str`. `library`,
    `(len(values), dim)`, is what the model's own library gives for them (for the first window of a longer one).
    Raises AssertionError that says what does not hold, ValueError for fewer than two values.
    """
    if len(values) < 2:
        raise ValueError(f"two values at least are needed, not {len(values)}")
    _check_card(encoder)
    inputs = [_first_window(encoder, value) for value in values]
    vectors = _encode(encoder, inputs)
    _claim(bool(np.isfinite(vectors).all()), "every number of a vector is finite")
    for place in range(1, len(vectors)):
        same = (vectors[:place] == vectors[place]).all(axis=1)
        _claim(not same.any(), f"different values have different vectors, but {same.argmax()} and {place} have one")
    if encoder.card.normalised:
        lengths = np.linalg.norm(vectors, axis=1)
        _claim(np.abs(lengths - 1).max() < 1e-3, f"a card that says normalised gives unit vectors, not {lengths}")
    _check_independence(encoder, values, inputs, vectors)
    if encoder.card.tokens:
        _check_tokens(encoder, inputs, vectors)
    if library is not None:
        check_fidelity(vectors, np.asarray(library, np.float32), encoder.card.precision)


def check_fidelity(vectors: Vectors, library: Vectors, precision: str = "fp32") -> None:
    """Hold `(n, dim)` vectors to those of the library: direction and length, within COSINE and LENGTH."""
    _claim(vectors.shape == library.shape, f"the library's shape is {library.shape}, not {vectors.shape}")
    found, wanted = np.linalg.norm(vectors, axis=1), np.linalg.norm(library, axis=1)
    cosines = (vectors * library).sum(1) / (found * wanted)
    least = COSINE[precision]
    _claim(cosines.min() >= least, f"the cosine with the library's vectors is {least} at least, not {cosines}")
    apart = np.abs(found / wanted - 1).max()
    _claim(apart <= LENGTH[precision], f"a vector is as long as the library's, not {apart:.2g} apart")


def distance(found: Vectors, wanted: Vectors) -> float:
    """The largest difference of any component, over the length of its vector."""
    lengths = np.maximum(np.linalg.norm(wanted, axis=1), np.finfo(np.float32).tiny)
    return float((np.abs(found - wanted).max(axis=1) / lengths).max())


def _check_card(encoder: Encoder) -> None:
    card = encoder.card
    _claim(card.modality in list(Modality), f"the card's modality is one of {', '.join(Modality)}")
    _claim(card.dim > 0 and encoder.batch_size > 0, "dim and batch_size are at least 1")
    _claim(bool(card.spec and card.space), "the card has a spec and a space; describe(SPEC) gives it both")
    _claim(card.modality in card.towers, f"the towers of the card have one for {card.modality}")


def _first_window(encoder: Encoder, value: Any) -> Any:
    windows = encoder.prepare(value)
    _claim(len(windows) > 0, "prepare gives one Prepared at least")
    _claim(all(isinstance(window, Prepared) for window in windows), "prepare gives a sequence of Prepared")
    return windows[0].data


def _encode(encoder: Encoder, inputs: Sequence[Any]) -> Vectors:
    vectors, shape = encoder.encode(inputs), (len(inputs), encoder.card.dim)
    _claim(isinstance(vectors, np.ndarray) and vectors.dtype == np.float32, "encode gives a numpy array of float32")
    _claim(vectors.shape == shape, f"{len(inputs)} inputs give {shape}, not {vectors.shape}")
    return vectors


def _check_independence(encoder: Encoder, values: Sequence[Any], inputs: list[Any], vectors: Vectors) -> None:
    """Whatever stands beside an input, and whoever else encodes, its vector is the same."""
    _encode(encoder, [])

    def afresh(_: int = 0) -> Vectors:
        return _encode(encoder, [_first_window(encoder, value) for value in values])

    with ThreadPoolExecutor(2) as pool:
        at_once = list(pool.map(afresh, range(2)))
    ways = {
        "prepared and encoded again": afresh(),
        "alone": np.concatenate([_encode(encoder, [one]) for one in inputs]),
        "in the reverse order": _encode(encoder, inputs[::-1])[::-1],
        "among others": np.concatenate([_encode(encoder, [*inputs[:1], *inputs[-1:] * 6])[:1], vectors[1:]]),
        "in one of two threads": at_once[0],
        "in the other of two threads": at_once[1],
    }
    same = SAME[encoder.card.precision]
    for way, found in ways.items():
        apart = distance(found, vectors)
        _claim(apart <= same, f"an input {way} has the same vector to {same}, not {apart:.2g} apart")


def _check_tokens(encoder: Encoder, inputs: list[Any], vectors: Vectors) -> None:
    _claim(isinstance(encoder, TokenEncoder), "a card with tokens is of an encoder with encode_tokens")
    assert isinstance(encoder, TokenEncoder)  # noqa: S101
    none, no_tokens = encoder.encode_tokens([])
    _claim(none.shape == (0, encoder.card.dim) and no_tokens == [], "no inputs give no tokens")
    found, tokens = encoder.encode_tokens(inputs)
    same = SAME[encoder.card.precision]
    _claim(distance(found, vectors) <= same, "the vectors beside tokens are those of encode")
    _claim(len(tokens) == len(inputs), f"{len(inputs)} inputs give as many sequences, not {len(tokens)}")
    for one, sequence in zip(inputs, tokens, strict=True):
        shape = (len(sequence), encoder.card.token_dim)
        _claim(sequence.shape == shape and len(sequence) > 0, f"tokens are (1 or more, dim), not {sequence.shape}")
        _claim(sequence.dtype == np.float32 and bool(np.isfinite(sequence).all()), "tokens are finite float32")
        (alone,) = encoder.encode_tokens([one])[1]
        _claim(alone.shape == sequence.shape, "padding is no token")
        scale = float(np.abs(sequence).max())
        _claim(float(np.abs(alone - sequence).max()) <= 10 * same * scale, "tokens do not depend on neighbours")


def _claim(holds: bool | np.bool_, claim: str) -> None:
    if not holds:
        raise AssertionError(f"does not hold: {claim}")
