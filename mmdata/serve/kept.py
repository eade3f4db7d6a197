"""What was made once and is asked for again."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable


class Kept:
    """Bytes by key, those used last, `most` bytes in all. Safe to use from several threads.

    `makers` are at work at once; what is there waits for none of them.
    """

    def __init__(self, most: int, makers: int) -> None:
        self._most, self._size = most, 0
        self._bytes: OrderedDict[Hashable, bytes] = OrderedDict()
        self._lock, self._making = threading.Lock(), threading.Semaphore(makers)

    def get(self, key: Hashable, make: Callable[[], bytes]) -> bytes:
        """The bytes of a key, made if they are not there."""
        there = self._there(key)
        if there is not None:
            return there
        with self._making:
            there = self._there(key)  # who waited may find what another has made
            return self._keep(key, make()) if there is None else there

    def _there(self, key: Hashable) -> bytes | None:
        with self._lock:
            if key in self._bytes:
                self._bytes.move_to_end(key)
            return self._bytes.get(key)

    def _keep(self, key: Hashable, made: bytes) -> bytes:
        with self._lock:
            self._size += len(made) - len(self._bytes.pop(key, b""))
            self._bytes[key] = made
            while self._size > self._most:
                self._size -= len(self._bytes.popitem(last=False)[1])
        return made
