"""Work done ahead of its taking, in threads and in order, bounded in bytes."""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import Any, Generic, TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


def ordered_map(
    pool: ThreadPoolExecutor,
    work: Callable[[In], Out],
    items: Iterable[In],
    *,
    ahead: int,
    budget: int,
    size: Callable[[Out], int],
) -> Generator[Out, None, None]:
    """`map` in the pool's threads, in order; the items are read in a thread of their own.

    No item is read while `ahead` of them are in work, or while results that nobody took yet hold `budget`
    bytes or more, by `size`. An error of the items or of the work is raised in its turn. Who may leave before the end
    closes it (`contextlib.closing`): the reader, which waits for room, would else wait for ever.
    """
    with closing(_Ahead(pool, work, ahead, budget, size)) as line:
        threading.Thread(target=line.feed, args=(items,), name="reader").start()
        while (future := line.next()) is not None:
            yield future.result()


class _Ahead(Generic[In, Out]):
    """Futures in the order of their items; `None` is the end."""

    def __init__(
        self, pool: ThreadPoolExecutor, work: Callable[[In], Out], ahead: int, budget: int, size: Callable[[Out], int]
    ) -> None:
        self.pool, self.work, self.ahead, self.budget, self.size = pool, work, ahead, budget, size
        self.line: deque[Future[Out] | None] = deque()
        self.changed = threading.Condition()
        self.working = 0
        self.held = 0  # bytes of results not yet taken
        self.closed = False

    def feed(self, items: Iterable[In]) -> None:
        """Read the items and hand them to the pool, as fast as the bounds allow."""
        try:
            for item in items:
                with self.changed:
                    self.changed.wait_for(self._may_go_on)
                    if self.closed:
                        return
                    self.working += 1
                    future = self.pool.submit(self.work, item)
                    self._append(future)
                future.add_done_callback(self._finished)
            end = None
        except BaseException as error:  # of the items: it is raised where they are taken, who would wait for ever
            end = Future[Out]()
            end.set_exception(error)
        with self.changed:
            self._append(end)

    def _may_go_on(self) -> bool:
        return self.closed or (self.working < self.ahead and self.held < self.budget)

    def _append(self, future: Future[Out] | None) -> None:
        self.line.append(future)
        self.changed.notify_all()

    def _finished(self, future: Future[Out]) -> None:
        with self.changed:
            self.working -= 1
            self.held += self._size(future)
            self.changed.notify_all()

    def next(self) -> Future[Out] | None:
        """The next future, done; or None after the last."""
        with self.changed:
            self.changed.wait_for(lambda: self.line)
            future = self.line[0]
        if future is None:
            return None
        future.exception()  # waits; the reader goes on meanwhile
        with self.changed:
            self.line.popleft()
            self.held -= self._size(future)
            self.changed.notify_all()
        return future

    def _size(self, future: Future[Any]) -> int:
        return 0 if future.cancelled() or future.exception() else self.size(future.result())

    def close(self) -> None:
        """Read no further: who took the results has gone."""
        with self.changed:
            self.closed = True
            self.changed.notify_all()
            left = [future for future in self.line if future is not None]
        for future in left:
            future.cancel()
