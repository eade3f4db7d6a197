"""Vectors that something else has made, as a feature set like any other."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmdata.errors import ConfigError
from mmdata.storage.dataset import Dataset, features_folder
from mmdata.storage.features import Features, claim, features_file
from mmdata.storage.receipts import commit, versions
from mmdata.storage.store import sha256
from mmdata.types import EncoderCard, Modality, Receipt

OWN = {"id", "key", "member", "embedding", "tokens"}
ROWS = 10_000  # of a shard


def import_vectors(
    dataset: Dataset,
    name: str,
    modality: Modality,
    keys: Sequence[str],
    embeddings: NDArray[np.floating],
    columns: Mapping[str, Any] | None = None,
    tokens: Sequence[NDArray[np.floating]] | None = None,
) -> Features:
    """Write `embeddings` `(n, dim)` float16 or float32 as the feature set `name`, 10,000 rows a shard.

    `columns` are captions, labels and other metadata, a sequence of n each; `tokens` are n arrays of any length and
    one width. Raises ConfigError when the lengths differ or a key comes twice, Conflict when a set of this name holds
    other vectors.
    """
    if len(keys) != len(embeddings) or len(set(keys)) != len(keys):
        raise ConfigError(f"{name}: {len(embeddings)} vectors need as many keys, all different, not {len(keys)}")
    rows = _rows(name, keys, columns or {})
    card = _card(name, modality, embeddings, tokens or ())
    claim(dataset, card, overwrite=False)
    for number, first in enumerate(range(0, len(keys), ROWS)):
        piece = slice(first, first + ROWS)
        data = features_file(
            card, rows.slice(first, ROWS), embeddings[piece], tokens=None if tokens is None else tokens[piece]
        )
        receipt = _receipt(card, f"{number:06d}", len(embeddings[piece]))
        commit(dataset.store, features_folder(name), receipt, {"parquet": data})
    return Features(dataset, name)


def _rows(name: str, keys: Sequence[str], columns: Mapping[str, Any]) -> pa.Table:
    given = pa.table({"id": pa.array(range(len(keys)), pa.int64()), "key": pa.array(keys, pa.string())})
    given = given.append_column("member", pa.array([""] * len(keys)))
    for column, values in columns.items():
        if column in OWN:
            raise ConfigError(f"{name}: a column cannot be called {column!r}, which is one of our own")
        given = given.append_column(column, pa.array(values))
    if "caption" not in columns:
        given = given.append_column("caption", pa.nulls(len(keys), pa.string()))
    return given


def _receipt(card: EncoderCard, shard: str, rows: int) -> Receipt:
    return Receipt(
        stage="extract",
        shard=shard,
        fingerprint=card.fingerprint,
        inputs={},
        outputs={},
        rows_in=rows,
        rows_out=rows,
        absent=0,
        rejected={},
        repaired={},
        seconds={},
        versions=versions("numpy", "pyarrow"),
    )


def _card(
    name: str, modality: Modality, embeddings: NDArray[np.floating], tokens: Sequence[NDArray[np.floating]]
) -> EncoderCard:
    digest = sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in (embeddings, *tokens)))
    return EncoderCard(
        name=name,
        spec=f"vectors:{name}",
        modality=modality,
        dim=embeddings.shape[1],
        dtype=str(embeddings.dtype),
        precision="fp32",
        normalised=False,
        space=f"vectors:{name}@{digest[:12]}",
        preprocessing={},
        revision="imported",
        weights_sha256=digest,
        towers={},
        tokens=max(map(len, tokens), default=0),
        token_dim=tokens[0].shape[1] if len(tokens) else 0,
    )
