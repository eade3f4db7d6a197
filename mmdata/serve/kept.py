"""What was made once and is asked for again."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable


class Kept:
    """Bytes by key, those used last, `most` bytes in all. Safe to use from several threads."""

    def __init__(self, most: int) -> None:
        self._most, self._size = most, 0
        self._bytes: OrderedDict[Hashable, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], bytes]) -> bytes:
        """The bytes of a key, made if they are not there."""
        with self._lock:
            if key in self._bytes:
                self._bytes.move_to_end(key)
                return self._bytes[key]
        made = make()
        with self._lock:
            self._size += len(made) - len(self._bytes.pop(key, b""))
            self._bytes[key] = made
            while self._size > self._most:
                self._size -= len(self._bytes.popitem(last=False)[1])
        return made
