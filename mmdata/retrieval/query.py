"""A query of any modality to a vector in the space of an index, or a refusal that names both sides."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmdata.encoders import Encoder, Prepared, Request, decode_options, describe, encode_many, load_encoder
from mmdata.encoders.families import is_code_of_its_own, is_of_mmdata
from mmdata.errors import ConfigError, Conflict, MMDataError, ModelError
from mmdata.fusion.heads import Tower, read_head
from mmdata.media import decode
from mmdata.storage.dataset import Dataset
from mmdata.storage.features import CARD, card_from_json, vectors
from mmdata.storage.tables import open_parquet
from mmdata.types import EncoderCard, Modality, Rejected

HEAD = "head:"


class Models:
    """The encoders of queries, each loaded once and shared by the indexes that need it."""

    def __init__(self) -> None:
        self._loaded: dict[str, Encoder] = {}
        self._lock = threading.Lock()

    def load(self, card: EncoderCard) -> Encoder:
        """The encoder of a card, in fp32: one query is fast enough with it."""
        exact = replace(card, precision="fp32")
        with self._lock:
            if exact.fingerprint not in self._loaded:
                self._loaded[exact.fingerprint] = load_encoder(exact)
            return self._loaded[exact.fingerprint]


class QueryEncoder:
    """Takes queries of one modality into the space of `card`."""

    def __init__(
        self, dataset: Dataset, card: EncoderCard, modality: Modality, models: Models, spec: str | None = None
    ) -> None:
        self.modality = modality
        self.tower: Tower | None = None
        given = spec
        spec = spec or card.towers.get(modality.value)
        if spec is None:
            raise Conflict(
                f"{modality} queries cannot be compared with {_brief(card)}: nothing takes {modality} into its "
                f"space; align it with {modality} features (mmdata align), ask with a vector of that space, or name "
                "what makes one: mmdata search --encoder"
            )
        if spec.startswith(HEAD):
            name, _, side = spec.removeprefix(HEAD).partition("#")
            head = read_head(dataset, name)
            self.tower = head.tower(side)
            writes, runs = head.output_card(side), head.inputs[side]
            _check_trust(runs.spec, given)
            _check_now(runs)
        else:
            _check_trust(spec, given)
            writes = runs = card if spec == card.spec else describe(spec, Request())
            _check_now(runs)
        if writes.space != card.space:
            raise Conflict(f"{_brief(writes)} cannot query {_brief(card)}: vectors of two spaces are not comparable")
        if runs.modality is not modality:
            raise ConfigError(f"{spec} encodes {runs.modality}, not {modality}")
        self.encoder = models.load(runs)

    def encode(self, data: bytes) -> NDArray[np.float32]:
        """One query, as the bytes of a file, to `(1, dim)`. Raises ConfigError when it cannot be decoded."""
        (found,) = self.encode_each([data])
        if isinstance(found, MMDataError):
            raise found
        return found

    def encode_each(self, queries: Sequence[bytes]) -> list[NDArray[np.float32] | MMDataError]:
        """Several queries together: for each what `encode` gives, or the error that it raises."""
        prepared = [self._prepare(data) for data in queries]
        good = [windows for windows in prepared if not isinstance(windows, MMDataError)]
        vectors = iter(self._vectors(good) if good else ())
        return [windows if isinstance(windows, MMDataError) else next(vectors) for windows in prepared]

    def _prepare(self, data: bytes) -> Sequence[Prepared] | MMDataError:
        try:
            return self.encoder.prepare(decode(self.modality, data, **decode_options(self.encoder.card)).value)
        except Rejected as problem:
            return ConfigError(f"the {self.modality} query cannot be used: {problem.message}")

    def _vectors(self, prepared: Sequence[Sequence[Prepared]]) -> Iterator[NDArray[np.float32] | MMDataError]:
        vectors = encode_many(self.encoder, prepared)
        usable: NDArray[np.bool_] = np.logical_and(np.isfinite(vectors).all(axis=1), vectors.any(axis=1))
        for row, good in enumerate(usable):
            vector = vectors[row : row + 1]
            if good:
                yield self.tower.project(vector) if self.tower else vector
            else:
                yield ModelError(f"{self.encoder.card.spec} gave no usable vector for this query")


def _check_trust(spec: str, given: str | None) -> None:
    """ConfigError for code that a dataset names and the user does not."""
    if spec != given and is_code_of_its_own(spec):
        raise ConfigError(
            f"the index names code of its own, {spec}, which data may not start; ask with a vector, or, if you "
            f"trust it: mmdata search --encoder {spec}"
        )


def _check_now(card: EncoderCard) -> None:
    """Conflict when code that is not of mmdata says by now that it writes another space than that of its card."""
    if is_of_mmdata(card.spec):
        return
    now = describe(card.spec, Request())
    if now.space != card.space:
        raise Conflict(
            f"{_brief(now)} cannot query what it wrote as {_brief(card)}: it changed since; take back the older one, "
            "or run mmdata extract and mmdata index again with --overwrite"
        )


def read_vectors(path: Path, card: EncoderCard) -> NDArray[np.float32]:
    """Queries from a file: an `.npy` of `(n, dim)` or `(dim,)`, or a Parquet with an `embedding` column.

    Raises Conflict when a Parquet's own card names another space, ConfigError when the file has no vectors.
    """
    return np.concatenate([*batches(path, card, 65_536)])


def batches(path: Path, card: EncoderCard, size: int) -> Iterator[NDArray[np.float32]]:
    """The queries of a file as `read_vectors` gives them, at most `size` at a time; one batch at least."""
    if not path.exists():
        raise ConfigError(f"{path} does not exist")
    read = _npy_batches if path.suffix == ".npy" else _parquet_batches
    try:
        for rows in read(path, card, size):
            yield rows.astype(np.float32)
    except (ValueError, OSError, KeyError, pa.ArrowException) as error:
        wanted = f"neither .npy nor Parquet with a column embedding of {card.dim} numbers"
        raise ConfigError(f"{path} is {wanted}: {error}") from error


def _npy_batches(path: Path, card: EncoderCard, size: int) -> Iterator[NDArray[Any]]:
    rows = np.atleast_2d(np.load(path, allow_pickle=False, mmap_mode="r"))
    for start in range(0, max(len(rows), 1), size):
        yield np.asarray(rows[start : start + size])


def _parquet_batches(path: Path, card: EncoderCard, size: int) -> Iterator[NDArray[Any]]:
    with open_parquet(path) as file:
        footer = file.schema_arrow.metadata or {}
        if CARD in footer:
            theirs = card_from_json(footer[CARD], str(path))
            if theirs.space != card.space:
                raise Conflict(f"{path} holds {_brief(theirs)}, the index {_brief(card)}: two spaces")
        yield np.zeros((0, card.dim), np.float32)
        for batch in file.iter_batches(size, columns=["embedding"], use_threads=False):
            fixed = batch["embedding"].cast(pa.list_(pa.float32(), card.dim))  # others write lists of any length
            if fixed.null_count:
                raise ValueError("a query is missing")
            yield vectors(pa.table({"embedding": fixed}))


def _brief(card: EncoderCard) -> str:
    return f"{card.spec!r} ({card.modality}, dim {card.dim}, space {card.space})"
