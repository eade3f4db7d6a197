"""An object store on this machine (moto's server), and a proxy before it that does what networks do."""

import http.client
import os
import re
import socket
import struct
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

BUCKET = "bucket"
BUSY = b"<Error><Code>SlowDown</Code><Message>Please reduce your rate</Message></Error>"
KEYS = {"AWS_ACCESS_KEY_ID": "user", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}


@dataclass
class Fault:
    """`times` requests whose method and path match meet `kind`: a status, reset, lost, stall, cut or slow."""

    kind: str
    method: str = ".*"
    path: str = ".*"
    times: int = 1
    fired: int = 0


@dataclass
class Network:
    """What lies between us and the store; `seen` are method, path and status (0: no answer) of every request."""

    address: tuple[str, int]
    url: str = ""
    faults: list[Fault] = field(default_factory=list)
    seen: list[tuple[str, str, int]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    delay: float = 1.5  # seconds of a stall
    pieces: int = 20  # of a slow answer, with a pause of 0.05 s between

    def fault(self, method: str, path: str) -> Fault:
        with self.lock:
            for fault in self.faults:
                if fault.fired < fault.times and re.fullmatch(fault.method, method) and re.search(fault.path, path):
                    fault.fired += 1
                    return fault
        return Fault("none")


class Proxy(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    network: Network

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        kind = self.network.fault(self.command, self.path).kind
        status, headers, content = int(kind) if kind.isdigit() else 0, {}, BUSY
        if not status and kind not in ("reset", "stall"):
            status, headers, content = self._forward(body)
        if kind == "lost":  # the store has done its work
            status = 0
        with self.network.lock:
            self.network.seen.append((self.command, self.path, status))
        time.sleep(self.network.delay if kind == "stall" else 0)
        if status:
            self._answer(status, headers, content, kind)
        else:
            self._hang_up()

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any

    def _forward(self, body: bytes):
        upstream = http.client.HTTPConnection(*self.network.address)
        upstream.request(self.command, self.path, body, dict(self.headers))
        answer = upstream.getresponse()
        content = answer.read()
        upstream.close()
        return answer.status, dict(answer.getheaders()), content

    def _answer(self, status: int, headers: dict, content: bytes, kind: str) -> None:
        self.send_response_only(status)
        kept = {k: v for k, v in headers.items() if k.lower() not in ("content-length", "connection")}
        length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(content))
        for name, value in {**kept, "Content-Length": length}.items():
            self.send_header(name, value)
        self.end_headers()
        step = -(-len(content) // self.network.pieces) if kind == "slow" else len(content)
        end = len(content) // 2 if kind == "cut" else len(content)
        for start in range(0, end, max(1, step)):
            self.wfile.write(content[start : min(end, start + step)])
            time.sleep(0.05 if kind == "slow" else 0)
        if kind == "cut":
            self._hang_up()

    def _hang_up(self) -> None:
        """Without a goodbye: the other side sees a reset."""
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

    def log_message(self, *_) -> None:
        pass


class _Moto(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_) -> None:
        pass


@contextmanager
def network():
    """moto and the proxy, with an empty bucket, and the environment that leads mmdata to them."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

    moto = make_server(
        "127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), server_class=_Moto, handler_class=_Quiet
    )
    between = Network(moto.server_address)
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), type("Between", (Proxy,), {"network": between}))
    proxy.daemon_threads = True
    between.url = f"http://127.0.0.1:{proxy.server_address[1]}"
    before = dict(os.environ)
    os.environ |= KEYS | {"AWS_ENDPOINT": between.url, "AWS_ALLOW_HTTP": "true", "AWS_EC2_METADATA_DISABLED": "true"}
    for server in (moto, proxy):
        threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        ask(between, "PUT", f"/{BUCKET}")
        yield between
    finally:
        os.environ.clear()
        os.environ |= before
        for server in (proxy, moto):
            server.shutdown()
            server.server_close()


def ask(between: Network, method: str, path: str, body: bytes = b"") -> None:
    """A request to moto itself."""
    connection = http.client.HTTPConnection(*between.address)
    connection.request(method, path, body)
    assert connection.getresponse().status == 200
    connection.close()
