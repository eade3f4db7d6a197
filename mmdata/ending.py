"""How a command ends: an error of ours, Ctrl-C or a kind kill are a message and an exit code, within seconds."""

import faulthandler
import logging
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from mmdata.errors import MMDataError
from mmdata.heap import keep_freed_memory
from mmdata.progress import Log, say

GRACE = 7.0  # seconds that a run has to let go of its workers
SIGNALS = (signal.SIGINT, signal.SIGTERM)
_stopped: list[int] = []  # the signal, once one has come


def run_to_end(call: Callable[[], None], debug: bool) -> None:
    """Do it, and end the process with the code that its end has: 130 and 143 when it was stopped.

    What is finished stays, and the last line says how to go on. A second signal does not wait for that.
    """
    keep_freed_memory()  # first of all: there are no other threads yet
    faulthandler.enable()  # a crash of native code says in which decoder or model
    logging.getLogger("mmdata").addHandler(Log())
    _listen()
    try:
        call()
    except MMDataError as error:
        if debug:
            raise
        say(f"error: {error}")
        _leave(error.exit_code)
    except SystemExit:
        if not _stopped:
            raise
        say(_farewell(_stopped[0]))
        _leave(128 + _stopped[0])


def _listen() -> None:
    """Exit from the main thread; where that hangs in native code, end the process after `GRACE`.

    `SystemExit` is what Ray lets out of its own calls; it forgets the code.
    """
    told, heard = os.pipe()
    os.set_blocking(heard, False)
    signal.set_wakeup_fd(heard, warn_on_full_buffer=False)
    for number in SIGNALS:
        signal.signal(number, _stop)
    threading.Thread(target=_insist, args=(told,), name="insist", daemon=True).start()


def _stop(number: int, frame: FrameType | None) -> None:
    for other in SIGNALS:
        signal.signal(other, signal.SIG_DFL)
    _stopped.append(number)
    raise SystemExit(128 + number)


def _insist(told: int) -> None:
    while (number := os.read(told, 1)[0]) not in SIGNALS:
        continue
    time.sleep(GRACE)
    say(_farewell(number))
    os._exit(128 + number)


def _farewell(number: int) -> str:
    name = signal.Signals(number).name
    return f"\nstopped by {name}; what is finished stays. To go on: {shlex.join(_command())}"


def _command() -> list[str]:
    """What was typed: `mmdata ...`, or `python -m MODULE ...`."""
    program = Path(sys.argv[0])
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is not None and program.suffix == ".py":
        return ["python", "-m", spec.name.removesuffix(".__main__"), *sys.argv[1:]]
    return [program.name, *sys.argv[1:]]


def _leave(code: int) -> None:
    """Let go of the cluster, then end without waiting for threads that may hang."""
    from mmdata.cluster import disconnect

    disconnect()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
