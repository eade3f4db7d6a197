"""JSON answers, and those that say what went wrong, for the routes and for OpenAPI."""

from typing import Any

import orjson
from fastapi import Response

from mmdata.serve.messages import ErrorOut

ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorOut, "description": "not HTTP or JSON as it should be, or a name this service does not have"},
    401: {"model": ErrorOut, "description": "without the API key"},
    404: {"model": ErrorOut, "description": "there is no such thing"},
    408: {"model": ErrorOut, "description": "the body came too slowly"},
    409: {"model": ErrorOut, "description": "vectors of two spaces, or an index older than the shards"},
    413: {"model": ErrorOut, "description": "too large"},
    415: {"model": ErrorOut, "description": "not JSON"},
    416: {"model": ErrorOut, "description": "a range outside of the part"},
    422: {"model": ErrorOut, "description": "a value that cannot be right"},
    503: {"model": ErrorOut, "description": "busy, or something of the service is broken"},
    504: {"model": ErrorOut, "description": "it took too long"},
}


def json(value: Any) -> Response:
    """A value as it is, without a second check: what is answered is made here."""
    return Response(orjson.dumps(value, default=str), media_type="application/json")
