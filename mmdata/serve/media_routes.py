"""Samples and their media over HTTP: by number alone, with ranges, hashes and small pictures."""

from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Response
from starlette.responses import StreamingResponse

from mmdata.serve.answers import ERRORS, json
from mmdata.serve.collection import Collection, Place
from mmdata.serve.errors import refusal
from mmdata.serve.kept import Kept
from mmdata.serve.media import SENT_AS, SVG, UNKNOWN, drawn, span, thumbnail
from mmdata.serve.messages import SampleOut
from mmdata.types import Modality

SMALL = 64 << 20  # bytes of small pictures, and of drawings, that are kept
DECODERS = 2  # pictures that are decoded at once: each may take 64 million pixels
Number = Annotated[int, Path(ge=0, lt=1 << 53)]
Side = Annotated[int | None, Query(alias="thumbnail", ge=16, le=1024)]
Key = Annotated[str | None, Query(max_length=4096, description="409 when the sample is of another key by now")]
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Accept-Ranges": "bytes",
    "Cache-Control": "no-cache",
}


def media_routes(collection: Collection) -> APIRouter:
    """The routes of the samples of a collection."""
    router = APIRouter(responses=ERRORS)
    small = Kept(SMALL, DECODERS)

    @router.get("/samples/{sample}", response_model=SampleOut)
    def one_sample(sample: Number, key: Key = None) -> Response:
        return json(collection.about(sample, key))

    @router.get("/samples/{sample}/{modality}", response_class=Response, responses={200: MEDIA, 206: MEDIA})
    def part(
        sample: Number,
        modality: Modality,
        key: Key = None,
        side: Side = None,
        range_: Annotated[str | None, Header(alias="Range")] = None,
        if_none_match: Annotated[str | None, Header()] = None,
    ) -> Response:
        place = collection.place(sample, modality, key)
        tag = f'"{place.sha256[:32]}-{side or 0}"'
        if if_none_match == tag:
            return Response(status_code=304, headers={"ETag": tag})
        headers = {**HEADERS, "ETag": tag}
        if side is not None:
            picture = small.get(tag, lambda: thumbnail(collection.whole(sample, modality, key), side))
            return Response(picture, media_type="image/webp", headers=headers)
        if place.type == SVG:
            picture = small.get(tag, lambda: drawn(collection.whole(sample, modality, key)))
            return Response(picture, media_type=SENT_AS[SVG], headers=headers)
        return _sent(collection, place, range_, headers)

    return router


MEDIA = {"description": "the bytes", "content": {"*/*": {"schema": {"type": "string", "format": "binary"}}}}


def _sent(collection: Collection, place: Place, range_: str | None, headers: dict[str, str]) -> Response:
    try:
        asked = span(range_, place.size)
    except ValueError:
        about = f"the part has {place.size} bytes; {range_} is not among them"
        return refusal(416, about, {"Content-Range": f"bytes */{place.size}"})
    start, stop = asked or (0, place.size)
    headers |= {"Content-Length": str(stop - start)}
    if asked:
        headers |= {"Content-Range": f"bytes {start}-{stop - 1}/{place.size}"}
    if place.type == UNKNOWN:
        headers |= {"Content-Disposition": "attachment"}
    chunks = collection.chunks(place, start, stop)
    return StreamingResponse(chunks, 206 if asked else 200, headers, media_type=place.type)
