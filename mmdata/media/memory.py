"""One sample at a time where there is no memory for several."""

import threading
from collections.abc import Callable
from typing import TypeVar

from mmdata.types import Reason, Rejected

Result = TypeVar("Result")
_alone = threading.Lock()


def with_room(call: Callable[[], Result]) -> Result:
    """What the call returns. Where memory runs out it is made again, when no other that is made again is at work.

    Raises Rejected (`oom`) where it runs out again: the sample is left out, and its shard goes on.
    """
    try:
        return call()
    except MemoryError:
        pass  # only after this block are the arrays that the error holds given back
    with _alone:
        try:
            return call()
        except MemoryError as error:
            raise Rejected(Reason.OOM, f"memory ran out over this part alone {error}".strip()) from None
