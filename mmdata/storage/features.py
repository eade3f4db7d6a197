"""Feature sets: the Parquet of one encoder (or head) over the shards."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mmdata.errors import Conflict, Damage, NotFound, conflict
from mmdata.storage.dataset import Dataset, features_folder
from mmdata.storage.pages import plain_values
from mmdata.storage.receipts import forget, read_output, read_receipts
from mmdata.storage.sealed import seal, unseal
from mmdata.storage.store import sha256
from mmdata.storage.tables import BROKEN, concat, from_parquet, to_parquet
from mmdata.types import EncoderCard, Modality, Receipt

FINGERPRINT = b"mmdata.fingerprint"
CARD = b"mmdata.encoder"
ROW_GROUP = 8192
LEAF = "embedding.list.element"  # Parquet's name of the column of numbers


def card_to_json(card: EncoderCard) -> bytes:
    """The card and its fingerprint."""
    return orjson.dumps({**asdict(card), "fingerprint": card.fingerprint}, option=orjson.OPT_INDENT_2)


def card_from_json(data: bytes, where: str) -> EncoderCard:
    """Damage when the card is not one, or was edited."""
    try:
        facts = orjson.loads(data)
        fingerprint = facts.pop("fingerprint")
        card = EncoderCard(**{**facts, "modality": Modality(facts["modality"])})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damage(f"{where} is not an encoder card: {error}") from error
    if card.fingerprint != fingerprint:
        raise Damage(f"{where} was edited: its fields do not give its fingerprint")
    return card


def read_card(dataset: Dataset, name: str) -> EncoderCard:
    """The card of a feature set. Damage when its file is not as it was written."""
    path = f"{features_folder(name)}/encoder.json"
    where = dataset.store.where(path)
    return card_from_json(orjson.dumps(unseal(dataset.store.read(path), where)), where)


def claim(dataset: Dataset, card: EncoderCard, overwrite: bool) -> None:
    """Put the card in its feature folder. Conflict, field by field, when another one is there.

    With `overwrite` that one is removed instead.
    """
    folder = features_folder(card.name)
    path = f"{folder}/encoder.json"
    if dataset.store.create(path, seal(orjson.loads(card_to_json(card)))):
        return
    if overwrite and read_card(dataset, card.name).fingerprint != card.fingerprint:
        for info in dataset.store.list(folder):
            dataset.store.delete(info.path)
        claim(dataset, card, overwrite=False)
    else:
        check_claim(dataset, card)


def check_claim(dataset: Dataset, card: EncoderCard) -> None:
    """Conflict, field by field, when another card is in the feature folder; NotFound when there is none."""
    found = read_card(dataset, card.name)
    if found.fingerprint != card.fingerprint:
        remedy = "give this one another name (--encoder NAME=SPEC, or --name), or --overwrite"
        raise conflict(dataset.store.where(features_folder(card.name)), _facts(found), _facts(card), remedy)


def _facts(card: EncoderCard) -> dict[str, object]:
    return {name: value for name, value in asdict(card).items() if name not in ("name", "versions")}


def finished(
    dataset: Dataset, card: EncoderCard, content: dict[str, dict[str, str]], overwrite: bool = False
) -> dict[str, Receipt]:
    """The receipts of a feature set. Conflict when a shard was made by another encoder or from other files.

    With `overwrite` the files of such a shard are removed instead.
    """
    folder = features_folder(card.name)
    receipts = read_receipts(dataset.store, folder)
    there = {name: {"encoder": receipt.fingerprint, **receipt.inputs} for name, receipt in receipts.items()}
    asked = {name: {"encoder": card.fingerprint, **content.get(name, {})} for name in receipts}
    stale = {name for name in receipts if there[name] != asked[name]}
    for name in sorted(stale):
        if not overwrite:
            what = f"shard {name} of {dataset.store.where(folder)}"
            raise conflict(what, there[name], asked[name], "make it again with --overwrite")
        forget(dataset.store, folder, receipts[name])
    return {name: receipt for name, receipt in receipts.items() if name not in stale}


def features_file(
    card: EncoderCard,
    rows: pa.Table,
    embeddings: NDArray[np.floating],
    *,
    tokens: Sequence[NDArray[np.floating]] | None = None,
    spans: NDArray[np.float32] | None = None,
) -> bytes:
    """The Parquet of a shard: `rows` (id, key, member, caption, metadata) and `embeddings` (n, dim).

    Vectors are stored as `fixed_size_list<float16 or float32>[dim]`, the card in the footer. `tokens`, n arrays
    `(length, token_dim)`, become a list of such vectors a row; `spans` `(n, 2)` the columns `start` and `end`.
    """
    added = {"embedding": _fixed(embeddings, card.dim, card.dtype)}
    if tokens is not None:
        offsets = np.cumsum([0, *map(len, tokens)], dtype=np.int32)
        flat = _fixed(np.concatenate([*tokens, np.zeros((0, card.token_dim))]), card.token_dim, card.dtype)
        added["tokens"] = pa.ListArray.from_arrays(pa.array(offsets), flat)
    if spans is not None:
        added |= {"start": pa.array(spans[:, 0]), "end": pa.array(spans[:, 1])}
    table, place = rows, rows.column_names.index("member")
    for offset, (name, column) in enumerate(added.items(), start=1):
        table = table.add_column(place + offset, name, column)
    footer = {FINGERPRINT: card.fingerprint.encode(), CARD: card_to_json(card)}
    return to_parquet(table.replace_schema_metadata(footer), plain=["embedding", "tokens"], row_group_size=ROW_GROUP)


def _fixed(rows: NDArray[np.floating], dim: int, dtype: str) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(rows, dtype=dtype).reshape(-1)), dim)


def same_rows(card: EncoderCard, found: bytes, data: bytes) -> bool:
    """Whether a features file found on disk is whole and has this card and the same samples as `data`."""
    try:
        there, ours = (from_parquet(b, "features") for b in (found, data))
    except Damage:
        return False
    footer = there.schema.metadata or {}
    return bool(footer.get(FINGERPRINT) == card.fingerprint.encode() and there["id"].equals(ours["id"]))


def vectors(table: pa.Table) -> NDArray[np.floating]:
    """The `embedding` column as (n, dim), without a copy where the table is in one chunk."""
    column = table["embedding"].combine_chunks()
    return np.asarray(column.flatten()).reshape(len(column), column.type.list_size)


def token_vectors(table: pa.Table) -> tuple[NDArray[np.floating], NDArray[np.int32]]:
    """The `tokens` column as all its vectors, `(total, token_dim)`, and `(n + 1,)` offsets: row i has `[i]:[i + 1]`."""
    column = table["tokens"].combine_chunks()
    flat = column.flatten()
    offsets = np.asarray(column.offsets) - column.offsets[0].as_py()
    return np.asarray(flat.flatten()).reshape(len(flat), flat.type.list_size), offsets.astype(np.int32)


class Features:
    """The feature set `name` of a dataset. Raises NotFound when there is none."""

    def __init__(self, dataset: Dataset, name: str) -> None:
        self.dataset = dataset
        self.name = name
        self.folder = features_folder(name)
        try:
            self.card = read_card(dataset, name)
        except NotFound as error:
            there = ", ".join(dataset.names("features")) or "none yet: run mmdata extract"
            raise NotFound(f"{dataset.url} has no features {name!r}; there are: {there}") from error
        self.receipts = read_receipts(dataset.store, self.folder)

    @property
    def fingerprint(self) -> str:
        """Hash of the card and of every file: changes when any vector does."""
        hashes = [o.sha256 for r in self.receipts.values() for o in r.outputs.values()]
        return sha256(orjson.dumps([self.card.fingerprint, *hashes]))

    @property
    def files(self) -> list[str]:
        """Full paths of the Parquet files, in shard order: readable by any Parquet reader."""
        return [self.dataset.store.where(f"{self.folder}/{shard}.parquet") for shard in self.receipts]

    def read(self, receipt: Receipt, columns: Sequence[str] | None = None) -> pa.Table:
        """One shard: id, key, member, embedding, caption and metadata, or only `columns`.

        Damage when any byte is not the one that was written.
        """
        where = self.dataset.store.where(f"{self.folder}/{receipt.shard}.parquet")
        data = read_output(self.dataset.store, self.folder, receipt, "parquet")
        about = _metadata(data, where)
        if (about.metadata or {}).get(FINGERPRINT) != self.card.fingerprint.encode():
            raise Conflict(f"{where} was made by another encoder than {self.folder}/encoder.json says")
        return _read(data, about, self.card, where, columns)

    def scan(self, columns: Sequence[str] | None = None) -> Iterator[tuple[str, pa.Table]]:
        """Shard name and its table, in shard order; one shard is in memory at a time."""
        for shard, receipt in self.receipts.items():
            yield shard, self.read(receipt, columns)

    def to_arrow(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All shards as one table, with the shard's name as the column `shard`."""
        tables = [table.append_column("shard", pa.array([shard] * len(table))) for shard, table in self.scan(columns)]
        if not tables:
            raise NotFound(f"features {self.name!r} have no finished shard; run mmdata extract again")
        return concat([table.replace_schema_metadata(None) for table in tables])


def _read(
    data: bytes, about: pq.FileMetaData, card: EncoderCard, where: str, columns: Sequence[str] | None
) -> pa.Table:
    """As `from_parquet`, with the embeddings straight from their pages."""
    schema = about.schema.to_arrow_schema()
    names = [name for name in schema.names if columns is None or name in columns]
    flat = plain_values(data, about, LEAF, card.dtype, where) if "embedding" in names else None
    if flat is None:
        return from_parquet(data, where, columns)
    field, others = schema.field("embedding"), [name for name in names if name != "embedding"]
    embedding = pa.FixedSizeListArray.from_arrays(pa.array(flat), type=field.type)
    if not others:
        return pa.Table.from_arrays([embedding], schema=pa.schema([field], schema.metadata))
    return from_parquet(data, where, others).add_column(names.index("embedding"), field, embedding)


def _metadata(data: bytes, where: str) -> pq.FileMetaData:
    try:
        return pq.read_metadata(pa.BufferReader(data))
    except BROKEN as error:
        raise Damage(f"{where} is damaged: {error}") from error
