"""Rows and vectors of a feature set for other tools: a table of formats, each written a shard at a time."""

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from mmdata.cluster import Resources
from mmdata.config import ExportConfig
from mmdata.errors import ConfigError, NotFound
from mmdata.retrieval.metric import unusable
from mmdata.retrieval.sample import draw
from mmdata.stages import Summary, Watch, silent
from mmdata.storage.dataset import Dataset
from mmdata.storage.features import Features, vectors
from mmdata.storage.tables import concat
from mmdata.types import Receipt

POINTS = 500  # of one request to Qdrant: with 768 numbers each about 6 MB of JSON, and it takes 32
PROJECTED_FROM = 20_000  # rows that the two directions of a map are computed from
ROW_GROUP = 8192


def export(config: ExportConfig, resources: Resources, watch: Watch = silent) -> Summary:
    """Write a feature set, without tokens and with float32 vectors, to a local file or folder that is not there yet.

    Raises ConfigError when it is there, or when the package of a format is not installed, NotFound without rows.
    """
    since = time.monotonic()
    out = Path(config.out)
    if out.exists():
        raise ConfigError(f"{out} is there; name another --out, or remove it")
    rows = _Rows.of(Features(Dataset.open(config.dataset), config.features), watch)
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(out.name + ".part")
    _remove(part)  # of a run that was killed
    try:
        FORMATS[config.to](rows, part)
        part.rename(out)
    finally:
        _remove(part)
    return Summary(
        stage="export",
        where=str(out),
        shards=len(rows.features.receipts),
        shards_before=0,
        rows_in=rows.total,
        rows_out=rows.total,
        absent=0,
        rejected={},
        repaired={},
        seconds=time.monotonic() - since,
        phases={},
        rows_now=rows.total,
        next=NEXT[config.to].format(out=out),
    )


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class _Rows:
    """The shards of a feature set as tables of one schema; one is in memory at a time."""

    features: Features
    none: pa.Table  # has the schema and no row
    total: int
    watch: Watch

    @classmethod
    def of(cls, features: Features, watch: Watch) -> "_Rows":
        empty = [_shard(features, receipt).slice(0, 0) for receipt in features.receipts.values()]
        total = sum(receipt.rows_out for receipt in features.receipts.values())
        if not total:
            raise NotFound(f"features {features.name!r} have no rows to export")
        return cls(features, concat(empty), total, watch)

    def __iter__(self) -> Iterator[pa.Table]:
        rows = 0
        for number, receipt in enumerate(self.features.receipts.values(), start=1):
            table = concat([self.none, _shard(self.features, receipt)])
            yield table.combine_chunks()
            rows += len(table)
            self.watch("export", number, len(self.features.receipts), rows)


def _shard(features: Features, receipt: Receipt) -> pa.Table:
    table = features.read(receipt).replace_schema_metadata(None)
    table = table.drop_columns([name for name in ("tokens",) if name in table.column_names])
    flat = pa.array(vectors(table).astype(np.float32).reshape(-1))
    place = table.column_names.index("embedding")
    table = table.set_column(place, "embedding", pa.FixedSizeListArray.from_arrays(flat, features.card.dim))
    return table.append_column("shard", pa.array([receipt.shard] * len(table), pa.string()))


def _parquet(rows: _Rows, out: Path) -> None:
    _write_parquet(rows.none.schema, rows, out)


def _write_parquet(schema: pa.Schema, tables: Iterator[pa.Table] | _Rows, out: Path) -> None:
    with pq.ParquetWriter(out, schema, compression="ZSTD", write_page_checksum=True) as writer:
        for table in tables:
            writer.write_table(table, row_group_size=ROW_GROUP)


def _hf(rows: _Rows, out: Path) -> None:
    """What `datasets.load_dataset(FOLDER)` and a dataset repository of the Hub read."""
    (out / "data").mkdir(parents=True)
    for number, table in enumerate(rows):
        name = f"train-{number:05d}-of-{len(rows.features.receipts):05d}.parquet"
        _write_parquet(table.schema, iter([table]), out / "data" / name)
    card = rows.features.card
    about = f"`embedding` holds the {card.dim} numbers of {card.spec} ({card.modality}), made by mmdata."
    configs = "configs:\n- config_name: default\n  data_files: data/train-*.parquet\n"
    (out / "README.md").write_text(f"---\n{configs}---\n\n# {card.name}\n\n{about}\n")


def _lance(rows: _Rows, out: Path) -> None:
    if find_spec("lance") is None:
        raise ConfigError("--to lance needs a package: pip install 'mmdata[lance]'")
    import lance

    batches = chain.from_iterable(table.to_batches() for table in rows)
    lance.write_dataset(pa.RecordBatchReader.from_batches(rows.none.schema, batches), str(out))


def _qdrant(rows: _Rows, out: Path) -> None:
    """Bodies of requests: `collection.json` makes a collection, each `points-*.json` puts points into it."""
    out.mkdir()
    collection = {"vectors": {"size": rows.features.card.dim, "distance": "Cosine"}}
    (out / "collection.json").write_bytes(orjson.dumps(collection))
    first = 0
    for table in rows:
        raw = vectors(table)
        good = np.flatnonzero(~np.logical_or.reduce(list(unusable(raw).values())))  # JSON has no NaN
        payloads = table.drop_columns(["embedding"]).to_pylist()
        for start in range(0, len(good), POINTS):
            points = [
                {"id": first + int(row), "vector": raw[row], "payload": payloads[row]}
                for row in good[start : start + POINTS]
            ]
            body = orjson.dumps({"points": points}, option=orjson.OPT_SERIALIZE_NUMPY, default=str)
            (out / f"points-{first + start:09d}.json").write_bytes(body)
        first += len(table)


def _embedding_atlas(rows: _Rows, out: Path) -> None:
    """One Parquet with a place on a map: the two directions in which the vectors differ most (PCA)."""
    sample = draw(rows.features, PROJECTED_FROM, "l2", seed=0).astype(np.float64)
    mean = sample.mean(axis=0)
    _, directions = np.linalg.eigh(np.cov(sample - mean, rowvar=False).reshape(len(mean), len(mean)))
    axes = directions[:, :-3:-1]

    def placed(table: pa.Table) -> pa.Table:
        places = (vectors(table) - mean) @ axes
        for name, column in zip(("projection_x", "projection_y"), places.T, strict=True):
            table = table.append_column(name, pa.array(column, pa.float32()))
        return table

    _write_parquet(placed(rows.none).schema, (placed(table) for table in rows), out)


FORMATS: dict[str, Callable[[_Rows, Path], None]] = {
    "parquet": _parquet,
    "hf": _hf,
    "lance": _lance,
    "qdrant": _qdrant,
    "embedding-atlas": _embedding_atlas,
}
NEXT = {
    "parquet": "",
    "hf": "in Python: datasets.load_dataset('{out}', split='train').add_faiss_index('embedding')",
    "lance": "in Python: lance.dataset('{out}')",
    "qdrant": "curl -X PUT HOST:6333/collections/NAME -H 'content-type: application/json' -d @{out}/collection.json",
    "embedding-atlas": "embedding-atlas {out} --x projection_x --y projection_y",
}
