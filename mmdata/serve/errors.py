"""Every error as `{"error": "what, why, what to do"}`, with a status that says whose turn it is."""

from collections.abc import Mapping

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from mmdata.errors import ConfigError, Conflict, MMDataError, NotFound
from mmdata.serve.batches import Busy
from mmdata.types import Rejected

STATUS: Mapping[type[Exception], int] = {ConfigError: 422, NotFound: 404, Conflict: 409}
BROKEN = 503  # storage, damage and models: not the client's fault


def refusal(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """The answer that carries an error."""
    body = orjson.dumps({"error": message})
    return Response(body, status, dict(headers or {}), media_type="application/json")


async def _ours(request: Request, error: Exception) -> Response:
    return refusal(STATUS.get(type(error), BROKEN), str(error))


async def _rejected(request: Request, error: Exception) -> Response:
    return refusal(422, str(error))


async def _busy(request: Request, error: Exception) -> Response:
    return refusal(503, "too many queries wait; try again in a moment", {"Retry-After": "1"})


async def _late(request: Request, error: Exception) -> Response:
    return refusal(504, "it took too long; ask for fewer hits, or for one index at a time")


async def _bug(request: Request, error: Exception) -> Response:
    return refusal(500, "something went wrong here; the log of the service tells what")


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  as registered
    return refusal(error.status_code, str(error.detail), error.headers)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101  as registered
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return refusal(400, f"the body is not JSON: {first['ctx']['error']}")
    place = ".".join(str(step) for step in first["loc"][1:])
    return refusal(422, f"{place or 'the body'}: {first['msg']}; see /openapi.json")


def answer_errors(app: FastAPI) -> None:
    """Teach an app to answer with our errors. What is none of ours is logged, and says nothing of itself."""
    app.add_exception_handler(MMDataError, _ours)
    app.add_exception_handler(Rejected, _rejected)
    app.add_exception_handler(Busy, _busy)
    app.add_exception_handler(TimeoutError, _late)
    app.add_exception_handler(Exception, _bug)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)
