"""Named places at which a test kills this very process, to show that nothing is lost.

They do nothing unless MMDATA_CRASH names a file. It says `NAME:N`, and the process that reaches the point NAME for
the Nth time renames the file to `.fired` and dies by SIGKILL. Every point that is reached is written to `.reached`.
"""

import ctypes
import os
import signal
import threading
from collections import Counter
from pathlib import Path

from mmdata.errors import ConfigError

FILE = os.environ.get("MMDATA_CRASH")

ALL = ("shard", "extract", "align", "index", "train", "project", "predict")
WITH_RECEIPTS = ("shard", "extract", "align", "project", "predict")  # align projects, too
POINTS: dict[str, tuple[str, ...]] = {
    # storage: before, in the middle of and after each file that appears, is replaced or goes
    "store.create": ("shard", "extract", "align", "index", "project", "predict"),
    "store.create.torn": ("shard", "extract", "align", "project", "predict"),
    "store.created": ("shard", "extract", "align", "index", "project", "predict"),
    "store.replace": ALL,
    "store.replace.torn": ALL,
    "store.replaced": ALL,
    "store.delete": ALL,
    "store.deleted": ALL,
    # a shard of a stage: its files are there, and then its receipt
    "receipt.files_written": WITH_RECEIPTS,
    "receipt.written": WITH_RECEIPTS,
    "summary.write": WITH_RECEIPTS,
    # shard
    "plan.scanned": ("shard",),
    "plan.table_written": ("shard",),
    "plan.written": ("shard",),
    "shard.setup": ("shard",),
    "shard.sample": ("shard",),
    "shard.made": ("shard",),
    # extract
    "extract.claimed": ("extract",),
    "extract.load_model": ("extract",),
    "extract.model_loaded": ("extract",),
    "extract.sample": ("extract",),
    "extract.batch": ("extract",),
    "extract.encoded": ("extract",),
    # heads
    "align.fitted": ("align",),
    "head.write": ("align", "train"),
    "head.files_written": ("align", "train"),
    "head.written": ("align", "train"),
    "train.step": ("train",),
    "train.epoch": ("train",),
    "project.load_head": ("align", "project"),
    "project.shard": ("align", "project"),
    "predict.load_head": ("predict",),
    "predict.shard": ("predict",),
    # index
    "index.claimed": ("index",),
    "index.trained": ("index",),
    "index.part": ("index",),
    "index.merged": ("index",),
    "index.vectors_written": ("index",),
    "index.vectors_torn": ("index",),
    "index.files_written": ("index",),
    "index.publish": ("index",),
    "index.published": ("index",),
}
"""Each point and the stages that pass it."""

_lock = threading.Lock()
_times: Counter[str] = Counter()


def point(name: str) -> None:
    """Die here, when a test has asked for it."""
    if FILE is not None and _asked(name):
        os.kill(os.getpid(), signal.SIGKILL)


def tear(name: str, size: int) -> None:
    """Die, when a test has asked for it, in the middle of the file of `size` bytes that is written next.

    The kernel sends SIGXFSZ to who writes beyond the limit: half of the file is on the disk then.
    """
    if FILE is not None and size and _asked(name):
        import resource

        ctypes.CDLL(None).signal(signal.SIGXFSZ, 0)  # from any thread, which signal.signal cannot
        resource.setrlimit(resource.RLIMIT_FSIZE, (max(1, size // 2), resource.RLIM_INFINITY))


def _asked(name: str) -> bool:
    with _lock:
        _times[name] += 1
        file = Path(FILE or "")
        try:
            asked = file.read_text().strip()
        except FileNotFoundError:  # it has fired, here or in another worker
            return False
        if asked and asked.rpartition(":")[0] not in POINTS:
            raise ConfigError(f"{file} asks for {asked!r}, which is no point NAME:N of mmdata/crash.py")
        with Path(f"{file}.reached").open("a") as log:
            log.write(f"{name}\n")
        if asked != f"{name}:{_times[name]}":
            return False
        try:
            file.rename(f"{file}.fired")
        except FileNotFoundError:
            return False
        return True
