"""Figures for those who run the service, as Prometheus reads them."""

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mmdata.serve.asking import Asking
from mmdata.serve.shelf import Shelf

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)


class Metrics:
    """The figures of one app, in a registry of its own."""

    def __init__(self, shelf: Shelf, asking: Asking) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "mmdata_requests", "answers by route and status", ["route", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "mmdata_request_seconds", "until an answer is sent", ["route"], buckets=SECONDS, registry=self._registry
        )
        self._rows = Gauge("mmdata_index_rows", "rows that can be found", ["index"], registry=self._registry)
        self._generation = Gauge("mmdata_index_generation", "generation in use", ["index"], registry=self._registry)
        self._shelf = shelf
        self._gauge("mmdata_broken_indexes", "indexes that cannot be opened", lambda: len(shelf.problems))
        self._gauge("mmdata_waiting_searches", "queries that wait to be searched", lambda: asking.searching.waiting)
        self._gauge("mmdata_waiting_encodings", "queries that wait to be encoded", lambda: asking.encoding.waiting)

    def _gauge(self, name: str, about: str, value: Callable[[], float]) -> None:
        Gauge(name, about, registry=self._registry).set_function(value)

    def text(self) -> bytes:
        """All figures in Prometheus' text format."""
        for index in self._shelf:
            self._rows.labels(index.facts.name).set(len(index))
            self._generation.labels(index.facts.name).set(int(index.facts.generation))
        return generate_latest(self._registry)

    def saw(self, route: str, status: int, seconds: float) -> None:
        """Count one answer."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)


class Measured:
    """Wraps an app: counts every answer, by the route that gave it."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        since, status = time.perf_counter(), 500

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, sending)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            self.metrics.saw(route, status, time.perf_counter() - since)
