"""One search for the command line, Python and HTTP: an index opened once, asked many times."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmdata.errors import ConfigError, Damage, NotFound
from mmdata.retrieval.index import METRICS, Built, ready
from mmdata.retrieval.query import QueryEncoder, read_vectors
from mmdata.retrieval.where import select
from mmdata.storage.dataset import Dataset, index_folder
from mmdata.storage.features import card_from_json, card_to_json
from mmdata.storage.store import sha256
from mmdata.storage.tables import from_parquet, to_parquet
from mmdata.types import EncoderCard, Hit, Modality

FILES = ("index.faiss", "rows.parquet")
AGAIN = "make it again: mmdata index ... --overwrite"
OWN = ("id", "key", "shard", "member", "caption")


@dataclass(frozen=True, slots=True)
class IndexFacts:
    """`index.json`, without the card and the hashes."""

    name: str
    features: str
    made_from: str  # fingerprint of the feature set
    kind: str
    metric: str
    parameters: dict[str, Any]
    rows: int
    seconds: float


def write_index(dataset: Dataset, built: Built, card: EncoderCard, facts: IndexFacts) -> None:
    """Write the index, its rows and, last, `index.json`, without which there is no index."""
    folder = index_folder(facts.name)
    if dataset.store.info(f"{folder}/index.json"):
        dataset.store.delete(f"{folder}/index.json")
    data = {
        "index.faiss": faiss.serialize_index(built.index).tobytes(),
        "rows.parquet": to_parquet(built.rows),
    }
    for name, content in data.items():
        dataset.store.replace(f"{folder}/{name}", content)
    about = {
        **{field: getattr(facts, field) for field in IndexFacts.__slots__},
        "sha256": {name: sha256(content) for name, content in data.items()},
        "encoder": orjson.loads(card_to_json(card)),
    }
    dataset.store.replace(f"{folder}/index.json", orjson.dumps(about, option=orjson.OPT_INDENT_2))


def read_facts(dataset: Dataset, name: str) -> tuple[IndexFacts, EncoderCard, dict[str, str]]:
    """What `index.json` says: facts, card, hashes. NotFound when there is no such index."""
    path = f"{index_folder(name)}/index.json"
    try:
        data = dataset.store.read(path)
    except NotFound as error:
        there = ", ".join(dataset.names("indexes")) or "none yet: run mmdata index"
        raise NotFound(f"{dataset.url} has no index {name!r}; there are: {there}") from error
    try:
        about = orjson.loads(data)
        card = card_from_json(orjson.dumps(about.pop("encoder")), dataset.store.where(path))
        hashes = about.pop("sha256")
        return IndexFacts(**about), card, hashes
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damage(f"{dataset.store.where(path)} does not describe an index: {error}; {AGAIN}") from error


class Index:
    """An open index. Safe to search from several threads."""

    def __init__(self, dataset: Dataset, name: str) -> None:
        self.dataset = dataset
        self.facts, self.card, hashes = read_facts(dataset, name)
        data = {file: dataset.store.read(f"{index_folder(name)}/{file}") for file in FILES}
        for file, content in data.items():
            if sha256(content) != hashes[file]:
                raise Damage(
                    f"{dataset.store.where(index_folder(name))}/{file} is not the file index.json names; {AGAIN}"
                )
        self.faiss: Any = faiss.deserialize_index(np.frombuffer(data["index.faiss"], np.uint8))
        self.rows = from_parquet(data["rows.parquet"], "rows.parquet")
        self._lock = threading.Lock()
        self._encoders: dict[tuple[Modality, str | None], QueryEncoder] = {}

    def __len__(self) -> int:
        return int(self.faiss.ntotal)

    def encode(self, modality: Modality, query: str | bytes, encoder: str | None = None) -> NDArray[np.float32]:
        """A text, or the bytes of a picture or a sound, to `(1, dim)` in the space of this index.

        Raises Conflict, naming both cards, when nothing takes this modality into the space.
        """
        if (modality, encoder) not in self._encoders:
            self._encoders[modality, encoder] = QueryEncoder(self.dataset, self.card, modality, encoder)
        return self._encoders[modality, encoder].encode(query.encode() if isinstance(query, str) else query)

    def vector_of(self, key: str) -> NDArray[np.float32]:
        """The stored vector of a sample, `(1, dim)`. NotFound when the key is not in the index."""
        row = pc.index(self.rows["key"], key).as_py()
        if row < 0:
            raise NotFound(f"the index {self.facts.name!r} has no sample {key!r}")
        with self._lock:
            if hasattr(self.faiss, "make_direct_map"):
                self.faiss.make_direct_map()
        return np.asarray(self.faiss.reconstruct(row), np.float32)[None]

    def search(self, queries: NDArray[np.floating], k: int = 10, where: Sequence[str] = ()) -> list[list[Hit]]:
        """The k nearest rows of each of `(n, dim)` queries, best first; fewer when there are fewer.

        A higher score is nearer: the cosine, the inner product, or minus the squared distance (l2).
        Raises ConfigError for k below one, a wrong filter, and queries that are not finite or not of `dim`.
        """
        if k < 1:
            raise ConfigError(f"k is {k}; ask for one hit at least")
        if queries.ndim != 2 or queries.shape[1] != self.card.dim:
            raise ConfigError(f"queries of shape {queries.shape}: {self.facts.name!r} takes (n, {self.card.dim})")
        if not np.isfinite(queries).all():
            raise ConfigError("a query has numbers that are not finite")
        chosen = select(self.rows, where)
        k = min(k, len(self) if chosen is None else len(chosen))
        if k == 0:
            return [[] for _ in queries]
        scores, ids = self.faiss.search(ready(queries, self.facts.metric), k, params=self._parameters(chosen))
        sign = -1.0 if METRICS[self.facts.metric].faiss_metric == faiss.METRIC_L2 else 1.0
        return [self._hits(sign * s, i) for s, i in zip(scores, ids, strict=True)]

    def _parameters(self, chosen: NDArray[np.int64] | None) -> Any:
        selector = {} if chosen is None else {"sel": faiss.IDSelectorBatch(chosen)}
        if self.facts.kind == "ivf-flat":
            # a filter leaves few right rows in each list, so all lists are probed
            probes = self.facts.parameters["nlist" if chosen is not None else "nprobe"]
            return faiss.SearchParametersIVF(nprobe=probes, **selector)  # type: ignore[call-arg]
        return faiss.SearchParameters(**selector)

    def _hits(self, scores: NDArray[np.float32], ids: NDArray[np.int64]) -> list[Hit]:
        found = [(float(s), int(i)) for s, i in zip(scores, ids, strict=True) if i >= 0]
        records = self.rows.take(pa.array([i for _, i in found], pa.int64())).to_pylist()
        return [
            Hit(
                rank=rank,
                score=score,
                caption=record["caption"] or "",
                metadata={n: v for n, v in record.items() if n not in OWN and v is not None},
                **{name: record[name] for name in OWN if name != "caption"},
            )
            for rank, ((score, _), record) in enumerate(zip(found, records, strict=True), start=1)
        ]

    def read_queries(self, path: str | Path) -> NDArray[np.float32]:
        """Query vectors from an .npy or Parquet file, `(n, dim)`."""
        return read_vectors(Path(path), self.card)


def open_index(dataset: str | Dataset, name: str) -> Index:
    """Open an index of a dataset. NotFound when there is none, Damage when a file is not what was written."""
    return Index(dataset if isinstance(dataset, Dataset) else Dataset.open(dataset), name)
