"""The door: who may come in, and how much they may bring. Plain ASGI, before any route is looked at."""

import asyncio
import hmac
from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mmdata.serve.errors import refusal
from mmdata.serve.limits import Access, Limits

OPEN = ("/", "/health")  # what needs no key: the page, which asks for it
OPEN_BELOW = ("/page/", "/vendor/")
PAGE_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SECURITY: Mapping[bytes, bytes] = {
    b"content-security-policy": PAGE_CSP.encode(),
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
}


class Refused(Exception):
    """The status and the words of a refusal."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class Guard:
    """Wraps an app. Every answer, a refusal too, carries the headers of `SECURITY` that it does not set itself."""

    def __init__(self, app: ASGIApp, access: Access, limits: Limits) -> None:
        self.app, self.access, self.limits = app, access, limits
        self._open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        self._open += 1
        try:
            await self._checked(scope, receive, _secured(send))
        finally:
            self._open -= 1

    async def _checked(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._check(scope)
            body = await self._body(scope, receive)
        except Refused as refused:
            await refusal(refused.status, str(refused), refused.headers)(scope, receive, send)
            return
        await self.app(scope, _replayed(body, receive), send)

    def _check(self, scope: Scope) -> None:
        if self._open > self.limits.requests:
            raise Refused(503, f"more than {self.limits.requests} requests are open; try again", Retry_After="1")
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        path = scope["path"]
        if path != "/health":
            self._check_host(headers)
        if self.access.api_key is not None and path not in OPEN and not path.startswith(OPEN_BELOW):
            self._check_key(headers)
        kind = headers.get(b"content-type", "").partition(";")[0].strip().lower()
        if scope["method"] == "POST" and kind != "application/json":
            raise Refused(415, "send JSON, with the header Content-Type: application/json")
        announced = headers.get(b"content-length", "0")
        self._check_size(int(announced[:19]) if announced.isdecimal() else 0)

    def _check_host(self, headers: Mapping[bytes, str]) -> None:
        """A page of another site that makes its name point here is known by the name (DNS rebinding)."""
        named = [_host_of(f"//{headers.get(b'host', '')}")]
        if b"origin" in headers:
            named.append(_host_of(headers[b"origin"]))
        for name in named:
            if name not in self.access.hosts:
                raise Refused(400, f"this service does not answer to {name!r}; start it with --allow-host {name}")

    def _check_key(self, headers: Mapping[bytes, str]) -> None:
        given = headers.get(b"authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode(), str(self.access.api_key).encode()):
            raise Refused(401, "send the API key with the header Authorization: Bearer KEY", WWW_Authenticate="Bearer")

    def _check_size(self, size: int) -> None:
        if size > self.limits.body:
            raise Refused(413, f"the body has more than {self.limits.body} bytes; send less", Connection="close")

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """All of it, by the bytes that come and not by those that were announced."""
        body = bytearray()
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                while True:
                    message = await receive()
                    body += message.get("body", b"")
                    self._check_size(len(body))
                    if message["type"] == "http.disconnect" or not message.get("more_body", False):
                        return bytes(body)
        except TimeoutError:
            raise Refused(408, f"the body took more than {self.limits.body_seconds:g} seconds") from None


def _host_of(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:
        return ""


def _secured(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = list(message.get("headers", []))
            given = {name.lower() for name, _ in own}
            message = {**message, "headers": own + [(n, v) for n, v in SECURITY.items() if n not in given]}
        await send(message)

    return sending


def _replayed(body: bytes, receive: Receive) -> Receive:
    """The body that was read, as the app asks for it; then what the client does."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receiving() -> Message:
        return messages.pop() if messages else await receive()

    return receiving
