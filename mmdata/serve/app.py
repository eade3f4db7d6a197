"""The app: the routes of the contract over one dataset, behind a guard."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import FastAPI, Query, Response

from mmdata.errors import MMDataError
from mmdata.serve.answers import ERRORS, json
from mmdata.serve.asking import Asking
from mmdata.serve.collection import Collection
from mmdata.serve.describe import describe
from mmdata.serve.errors import answer_errors
from mmdata.serve.guard import Guard
from mmdata.serve.head import Head
from mmdata.serve.limits import THIS_MACHINE, USUAL, Access, Limits
from mmdata.serve.media_routes import media_routes
from mmdata.serve.messages import BrokenOut, HealthOut, IndexOut, MapOut, SearchAnswer, SearchRequest
from mmdata.serve.metrics import Measured, Metrics
from mmdata.serve.page_files import page_routes
from mmdata.serve.projection import columns, project
from mmdata.serve.shelf import Latest, Shelf
from mmdata.storage.dataset import Dataset
from mmdata.types import Modality

log = logging.getLogger(__name__)


def create_app(
    dataset: Dataset,
    access: Access = THIS_MACHINE,
    limits: Limits = USUAL,
    *,
    refresh_seconds: float = 2.0,
    warm: bool = False,
) -> FastAPI:
    """The service over a dataset.

    A newer generation of an index, and shards that were made anew, are used `refresh_seconds` after they appeared;
    `warm`: load the encoders now, and not with the first query.
    """
    shelf, collection = Shelf(dataset), Collection(dataset)
    asking = Asking(limits, collection)
    metrics = Metrics(shelf, asking)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(_keep_fresh(shelf, collection, refresh_seconds))]
        if warm:
            tasks.append(asyncio.create_task(asyncio.to_thread(load_encoders, shelf)))
        yield
        for task in tasks:
            task.cancel()
        for failed in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(failed, Exception):
                log.error("a task of the service failed", exc_info=failed)
        asking.close()

    app = FastAPI(title="mmdata", docs_url=None, redoc_url=None, lifespan=lifespan)
    answer_errors(app)
    app.include_router(page_routes())
    app.include_router(media_routes(collection))
    _add_search(app, shelf, asking)
    _add_indexes(app, shelf)
    _add_watch(app, shelf, metrics)
    app.add_middleware(Head)
    app.add_middleware(Guard, access=access, limits=limits)
    app.add_middleware(Measured, metrics=metrics)
    return app


def _add_search(app: FastAPI, shelf: Shelf, asking: Asking) -> None:
    @app.post("/search", response_model=SearchAnswer, responses=ERRORS)
    async def search(request: SearchRequest) -> Response:
        since = time.perf_counter()
        names = [request.index] if isinstance(request.index, str) else request.index
        indexes = [shelf[name] for name in names]
        async with asyncio.timeout(asking.limits.seconds):
            answers = await asyncio.gather(*(asking.answer(index, request) for index in indexes))
        return json({"answers": answers, "seconds": time.perf_counter() - since})


def _add_indexes(app: FastAPI, shelf: Shelf) -> None:
    about, maps = Latest(describe), Latest(project)

    @app.get("/indexes", response_model=list[IndexOut | BrokenOut], responses=ERRORS)
    def indexes() -> Response:
        problems = shelf.problems
        usable = [{**about(index), "problem": problems.pop(index.facts.name, None)} for index in shelf]
        return json(usable + [{"name": name, "problem": reason} for name, reason in problems.items()])

    @app.get("/indexes/{name}/map", response_model=MapOut, responses=ERRORS)
    def projection(name: str, field: Annotated[str | None, Query(max_length=256)] = None) -> Response:
        index = shelf[name]
        return json(columns(index, maps(index), field))


def _add_watch(app: FastAPI, shelf: Shelf, metrics: Metrics) -> None:
    @app.get("/health", responses=ERRORS)
    async def health() -> HealthOut:
        broken = len(shelf.problems)  # their reasons name files, and who asks here has shown no key
        if not broken:
            return HealthOut(status="ok")
        return HealthOut(status="degraded", problem=f"indexes that cannot be opened: {broken}; /indexes says why")

    @app.get("/metrics", response_class=Response, responses={**ERRORS, 200: {"content": {"text/plain": {}}}})
    def figures() -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def _keep_fresh(shelf: Shelf, collection: Collection, seconds: float) -> None:
    """Look for newer generations and a newer plan now and then: a label is small, and this works on any store."""
    said = ""
    while True:
        await asyncio.sleep(seconds)
        try:
            await asyncio.to_thread(shelf.refresh)
            await asyncio.to_thread(collection.refresh)
            said = ""
        except Exception as error:  # whatever it was, a full disk say, the next look may succeed: nobody else looks
            if said != str(error):
                log.exception("the indexes and shards cannot be looked at")
            said = str(error)


def load_encoders(shelf: Shelf) -> None:
    """Load what queries will need; what cannot be loaded says so when it is asked for."""
    for index in shelf:
        for modality in index.card.towers:
            try:
                index.encoder(Modality(modality))
            except MMDataError as error:
                log.warning("%s queries of %r will fail: %s", modality, index.facts.name, error)
