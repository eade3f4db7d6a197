"""A search request to its answer: terms to vectors, vectors to hits, many requests at once."""

import asyncio
import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mmdata.errors import ConfigError
from mmdata.retrieval.fold import Fold
from mmdata.retrieval.query import QueryEncoder
from mmdata.retrieval.search import Index
from mmdata.retrieval.vector_index import Floats
from mmdata.retrieval.where import Filter
from mmdata.serve.batches import Batches
from mmdata.serve.collection import Collection, part_url
from mmdata.serve.limits import Limits
from mmdata.serve.messages import AudioTerm, ImageTerm, KeyTerm, SearchRequest, Term, TextTerm, VectorTerm
from mmdata.types import Hit, Modality

SEARCHERS = 2  # threads: one goes on while a long exact search runs in the other


@dataclass(frozen=True)
class Asked:
    """What queries must share to be searched together; `index` is one open generation."""

    index: Index
    k: int
    said: str  # `where` in words, by which it is compared: in Python 1, 1.0 and True are equal
    at_least: float | None
    fold: Fold | None
    where: tuple[Filter, ...] = field(compare=False)


class Asking:
    """Answers requests over open indexes. Texts that wait are encoded together, and vectors searched together."""

    def __init__(self, limits: Limits, collection: Collection) -> None:
        self.limits, self.collection = limits, collection
        self.encoding: Batches[QueryEncoder, bytes, Floats] = Batches(_encode, limits.batch, limits.waiting)
        self.searching: Batches[Asked, Floats, list[dict[str, Any]]] = Batches(
            self._search, limits.batch, limits.waiting, SEARCHERS
        )

    def close(self) -> None:
        """Let the threads end."""
        self.encoding.close()
        self.searching.close()

    async def answer(self, index: Index, request: SearchRequest) -> dict[str, Any]:
        """The answer of one index, as the contract has it.

        Raises ConfigError for a query that it cannot take, Conflict for a modality that cannot ask it, NotFound
        for a key that it has not.
        """
        if request.k > self.limits.k:
            raise ConfigError(f"k is {request.k}; this service gives {self.limits.k} hits at most")
        if len(request.terms) > self.limits.terms:
            raise ConfigError(f"{len(request.terms)} terms; this service takes {self.limits.terms} at most")
        terms = [(await self._vector(index, term), term.weight) for term in request.terms]
        where = tuple(Filter(one.field, one.op, one.value) for one in request.where)
        fold = Fold(request.fold) if request.fold else None
        asked = Asked(index, request.k, repr(where), request.at_least, fold, where)
        hits = await self.searching.ask(asked, _finite(index.combine(terms)))
        return {"index": index.facts.name, "modality": index.card.modality, "hits": hits}

    async def _vector(self, index: Index, term: Term) -> Floats:
        match term:
            case KeyTerm(key=key):
                return await asyncio.to_thread(index.vector_of, key)
            case VectorTerm(vector=numbers):
                return _given(index, numbers)
            case TextTerm(text=text):
                return await self._encoded(index, Modality.TEXT, text.encode())
            case ImageTerm(image=data):
                return await self._encoded(index, Modality.IMAGE, _bytes_of(data))
            case AudioTerm(audio=data):
                return await self._encoded(index, Modality.AUDIO, _bytes_of(data))

    async def _encoded(self, index: Index, modality: Modality, data: bytes) -> Floats:
        encoder = await asyncio.to_thread(index.encoder, modality)  # which may load it
        return await self.encoding.ask(encoder, data)

    def _search(self, asked: Asked, queries: Sequence[Floats]) -> list[list[dict[str, Any]] | Exception]:
        found = asked.index.search(
            np.concatenate(queries), asked.k, asked.where, at_least=asked.at_least, fold=asked.fold
        )
        modality = asked.index.card.modality.value
        rows = zip(found.ids.tolist(), found, strict=True)
        return [[self._hit(row, hit, modality) for row, hit in zip(ids, hits, strict=False)] for ids, hits in rows]

    def _hit(self, row: int, hit: Hit, modality: str) -> dict[str, Any]:
        start, end = hit.window or (None, None)
        return {
            "id": hit.id,
            "row": row,
            "key": hit.key,
            "score": hit.score,
            "caption": hit.caption,
            "modality": modality,
            "media": part_url(hit.id, modality, hit.key) if self.collection else None,
            "start": start,
            "end": end,
            "metadata": hit.metadata,
        }


def _encode(encoder: QueryEncoder, queries: Sequence[bytes]) -> Sequence[Floats | Exception]:
    return encoder.encode_each(queries)


def _given(index: Index, numbers: Sequence[float]) -> Floats:
    if len(numbers) != index.card.dim:
        raise ConfigError(f"a vector of {len(numbers)} numbers; {index.facts.name!r} takes {index.card.dim}")
    with np.errstate(over="ignore"):
        return _finite(np.array([numbers], np.float32))


def _finite(vector: Floats) -> Floats:
    if not np.isfinite(vector).all():
        raise ConfigError("a vector has numbers that float32 cannot hold")
    return vector


def _bytes_of(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ConfigError(f"the upload is not base64: {error}") from error
