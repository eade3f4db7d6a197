"""The app: one route a line of the contract."""

import base64
import binascii
import time
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from fastapi import FastAPI, Query, Response
from fastapi.responses import FileResponse, StreamingResponse

from mmdata.errors import ConfigError, NotFound
from mmdata.retrieval.search import Fold, Index
from mmdata.retrieval.vector_index import Floats
from mmdata.serve.collection import Collection
from mmdata.serve.errors import answer_errors
from mmdata.serve.media import HEAD, thumbnail, type_of
from mmdata.serve.messages import IndexOut, MapOut, SampleOut, SearchAnswer, SearchRequest, Term
from mmdata.serve.shelf import Shelf
from mmdata.storage.dataset import Dataset
from mmdata.types import Modality

KINDS = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


def create_app(dataset: Dataset) -> FastAPI:  # noqa: C901
    """The service over a dataset."""
    app = FastAPI(title="mmdata", docs_url=None, redoc_url=None)
    shelf, collection = Shelf(dataset), Collection(dataset)
    answer_errors(app)

    page = files("mmdata.serve") / "page"
    own = {entry.name: str(entry) for entry in page.iterdir() if entry.is_file()} if page.is_dir() else {}

    @app.get("/", include_in_schema=False)
    def index_page() -> Response:
        return _page("index.html")

    @app.get("/page/{name}", include_in_schema=False)
    def _page(name: str) -> Response:
        if name not in own or Path(name).suffix not in KINDS:
            raise NotFound(f"the page has no file {name!r}")
        return FileResponse(own[name], media_type=KINDS[Path(name).suffix])

    @app.get("/vendor/plotly.min.js", include_in_schema=False)
    def plotly() -> Response:
        return FileResponse(str(files("plotly") / "package_data" / "plotly.min.js"), media_type="text/javascript")

    @app.get("/indexes", response_model=list[IndexOut])
    def indexes() -> Response:
        return _json([_about(index) for index in shelf])

    @app.post("/search", response_model=SearchAnswer)
    def search(asked: SearchRequest) -> Response:
        since = time.perf_counter()
        names = [asked.index] if isinstance(asked.index, str) else asked.index
        answers = [_answer(shelf[name], asked, collection) for name in names]
        return _json({"answers": answers, "seconds": time.perf_counter() - since})

    @app.get("/samples/{sample}", response_model=SampleOut)
    def one_sample(sample: int) -> Response:
        return _json(_sample(collection, sample))

    @app.get("/samples/{sample}/{modality}", response_class=Response)
    def part(
        sample: int, modality: Modality, side: Annotated[int | None, Query(alias="thumbnail", ge=16, le=1024)] = None
    ) -> Response:
        place = collection.place(sample, modality)
        if side is not None:
            data = bytes(collection.read(place, 0, place.size))
            return Response(thumbnail(data, side), media_type="image/webp")
        kind = type_of(modality, bytes(collection.read(place, 0, min(HEAD, place.size))))
        return StreamingResponse(
            (bytes(chunk) for chunk in collection.chunks(place, 0, place.size)),
            media_type=kind,
            headers={"Content-Length": str(place.size)},
        )

    @app.get("/indexes/{name}/map", response_model=MapOut)
    def projection(name: str, field: str | None = None) -> Response:
        return _json(_map(shelf[name], field))

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    return app


def _json(value: Any) -> Response:
    return Response(orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")


OWN = ("id", "key", "shard", "member", "caption", "start", "end")


def _about(index: Index) -> dict[str, Any]:
    facts, card = index.facts, index.card
    return {
        "name": facts.name,
        "modality": card.modality,
        "dim": card.dim,
        "kind": facts.kind,
        "metric": facts.metric,
        "rows": len(index),
        "generation": facts.generation,
        "recall": facts.recall,
        "queries": sorted(card.towers),
        "encoder": {"name": card.name, "spec": card.spec, "space": card.space, "revision": card.revision},
        "fields": [_facet(name, index.rows[name]) for name in index.rows.column_names if name not in OWN],
    }


def _facet(name: str, column: pa.ChunkedArray) -> dict[str, Any]:
    kind = column.type
    if pa.types.is_boolean(kind):
        return {"name": name, "type": "bool", "values": [True, False], "min": None, "max": None}
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        ends = pc.min_max(column).as_py()
        return {"name": name, "type": "number", "values": [], **ends}
    counts = pc.value_counts(column.cast(pa.string()).drop_null())
    order = pc.sort_indices(counts.field("counts"), sort_keys=[("", "descending")])[:50]
    return {
        "name": name,
        "type": "text",
        "values": counts.field("values").take(order).to_pylist(),
        "min": None,
        "max": None,
    }


def _vector(index: Index, term: Term) -> Floats:
    if term.key is not None:
        return index.vector_of(term.key)
    if term.vector is not None:
        if len(term.vector) != index.card.dim:
            raise ConfigError(f"a vector of {len(term.vector)} numbers; {index.facts.name!r} takes {index.card.dim}")
        return np.array([term.vector], np.float32)
    if term.text is not None:
        return index.encode(Modality.TEXT, term.text)
    modality = Modality.IMAGE if term.image is not None else Modality.AUDIO
    try:
        data = base64.b64decode(term.image or term.audio or "", validate=True)
    except binascii.Error as error:
        raise ConfigError(f"the {modality} is not base64: {error}") from error
    return index.encode(modality, data)


def _answer(index: Index, asked: SearchRequest, collection: Collection) -> dict[str, Any]:
    query = index.combine([(_vector(index, term), term.weight) for term in asked.terms])
    where = [f"{f.field}{f.op}{f.value}" for f in asked.where]
    found = index.search(query, asked.k, where, at_least=asked.at_least, fold=Fold(asked.fold) if asked.fold else None)
    modality = index.card.modality
    ids = found.ids[0, : found.counts[0]]
    hits = [
        {
            "id": hit.id,
            "row": int(row),
            "key": hit.key,
            "score": hit.score,
            "caption": hit.caption,
            "modality": modality,
            "media": f"/samples/{hit.id}/{modality}" if collection else None,
            "start": hit.window[0] if hit.window else None,
            "end": hit.window[1] if hit.window else None,
            "metadata": hit.metadata,
        }
        for row, hit in zip(ids, found[0], strict=True)
    ]
    return {"index": index.facts.name, "modality": modality, "hits": hits}


def _sample(collection: Collection, sample: int) -> dict[str, Any]:
    _, row, names = collection.find(sample)
    parts = {}
    for modality in Modality:
        if row[f"{modality}_suffix"] is not None:
            place = collection.place(sample, modality)
            head = bytes(collection.read(place, 0, min(HEAD, place.size)))
            url = f"/samples/{sample}/{modality}"
            parts[modality.value] = {
                "suffix": place.suffix,
                "size": place.size,
                "type": type_of(modality, head),
                "url": url,
            }
    metadata = {name: row[name] for name in names if row[name] is not None}
    return {"id": sample, "key": row["key"], "caption": row["caption"] or "", "metadata": metadata, "parts": parts}


def _map(index: Index, field: str | None) -> dict[str, Any]:
    from sklearn.decomposition import PCA

    rows = np.flatnonzero(np.asarray(index.rows["key"].is_valid()))
    if len(rows) > 20_000:
        rows = np.sort(np.random.default_rng(0).choice(rows, 20_000, replace=False))
    about = index.rows.take(pa.array(rows))
    if field is not None and field not in about.column_names:
        raise NotFound(f"{index.facts.name!r} has no field {field!r}")
    vectors = index.vector_index.stored(rows)
    spots = (
        PCA(2, random_state=0).fit_transform(vectors).astype(np.float32) if len(rows) > 2 else np.zeros((len(rows), 2))
    )
    return {
        "id": about["id"].to_pylist(),
        "key": about["key"].to_pylist(),
        "x": spots[:, 0].tolist(),
        "y": spots[:, 1].tolist(),
        "value": about[field].to_pylist() if field else [None] * len(rows),
        "caption": [text or "" for text in about["caption"].to_pylist()],
    }
