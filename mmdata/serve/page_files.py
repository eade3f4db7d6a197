"""The page and plotly.js: a closed list of files, read when the app is made."""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import PurePath
from typing import Any

from fastapi import APIRouter, Request, Response

from mmdata.errors import NotFound

TYPES: Mapping[str, str] = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".json": "application/json",
}
PLOTLY = "package_data/plotly.min.js"


def page_routes() -> APIRouter:
    """The routes of the page. A browser asks again each time whether a file has changed."""
    router = APIRouter(include_in_schema=False)
    own = _own_files()

    @router.get("/")
    def index_page(request: Request) -> Response:
        return _file(own, "index.html")

    @router.get("/page/{name}")
    def page_file(name: str) -> Response:
        return _file(own, name)

    @router.get("/vendor/plotly.min.js")
    def plotly() -> Response:
        data = (files("plotly") / PLOTLY).read_bytes()
        return Response(data, media_type=TYPES[".js"], headers={"Cache-Control": "max-age=86400"})

    return router


def _own_files() -> dict[str, bytes]:
    folder: Any = files("mmdata.serve") / "page"
    entries = folder.iterdir() if folder.is_dir() else ()
    return {entry.name: entry.read_bytes() for entry in entries if PurePath(entry.name).suffix in TYPES}


def _file(own: Mapping[str, bytes], name: str) -> Response:
    if name not in own:
        raise NotFound(f"the page has no file {name!r}")
    return Response(own[name], media_type=TYPES[PurePath(name).suffix], headers={"Cache-Control": "no-cache"})
