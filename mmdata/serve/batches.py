"""Questions that wait while others are answered are answered together."""

import asyncio
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Kind = TypeVar("Kind", bound=Hashable)
Item = TypeVar("Item")
Found = TypeVar("Found")


class Busy(Exception):
    """More are waiting than may."""


class Batches(Generic[Kind, Item, Found]):
    """Answers items of one kind together, `most` at once, in `threads` threads. Nobody waits for a batch to fill.

    `answer(kind, items)` gives for each item what was found, or the error that this item alone gets.
    """

    def __init__(
        self,
        answer: Callable[[Kind, Sequence[Item]], Sequence[Found | Exception]],
        most: int,
        waiting: int,
        threads: int = 1,
    ) -> None:
        self._answer, self._most, self._limit, self._threads = answer, most, waiting, threads
        self._pool = ThreadPoolExecutor(threads)
        self._queue: dict[Kind, list[tuple[Item, asyncio.Future[Found]]]] = {}
        self._drains = 0  # that will look at the queue once more
        self._tasks: set[asyncio.Task[None]] = set()  # the loop itself keeps none
        self.waiting = 0

    async def ask(self, kind: Kind, item: Item) -> Found:
        """What was found for an item. Raises Busy at once when too many wait."""
        if self.waiting >= self._limit:
            raise Busy
        future: asyncio.Future[Found] = asyncio.get_running_loop().create_future()
        self._queue.setdefault(kind, []).append((item, future))
        self.waiting += 1
        if self._drains < self._threads:
            self._drains += 1
            task = asyncio.create_task(self._drain())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await future

    def close(self) -> None:
        """Let the threads end."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    async def _drain(self) -> None:
        """Answer the kinds in the order they came; what is left of one goes behind the others."""
        try:
            while self._queue:
                kind = next(iter(self._queue))
                queued = self._queue.pop(kind)
                group, rest = queued[: self._most], queued[self._most :]
                if rest:
                    self._queue[kind] = rest
                self.waiting -= len(group)
                await self._answer_group(kind, [(item, future) for item, future in group if not future.done()])
        finally:
            self._drains -= 1  # at once: what is asked from here on starts another

    async def _answer_group(self, kind: Kind, group: Sequence[tuple[Item, asyncio.Future[Found]]]) -> None:
        if not group:
            return
        loop = asyncio.get_running_loop()
        found: Sequence[Found | Exception]
        try:
            found = await loop.run_in_executor(self._pool, self._answer, kind, [item for item, _ in group])
        except Exception as error:
            found = [error] * len(group)
        for (_, future), result in zip(group, found, strict=True):
            if future.done():
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)
