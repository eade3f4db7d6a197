"""Where the figures of a run go while it trains: TensorBoard's event files, and whatever else is asked for."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from mmdata.errors import ConfigError
from mmdata.fusion.train import Watch
from mmdata.storage.dataset import head_folder
from mmdata.storage.store import Store


class Tracker(Protocol):
    """What follows a run. It is built with the name of the head, a local folder for files, and the config."""

    def epoch(self, told: dict[str, Any]) -> None:
        """`epoch`, the number; `loss` by task; `validation` by TASK/FIGURE. A run that goes on starts behind 0."""

    def close(self) -> None:
        """The run has ended."""


class TensorBoard:
    """Event files: `tensorboard --logdir DATASET/heads` shows all heads side by side."""

    def __init__(self, name: str, folder: Path, config: dict[str, Any]) -> None:
        self.folder = folder
        self.writer: Any = None

    def epoch(self, told: dict[str, Any]) -> None:
        """Losses and validation figures as scalars; what a killed run wrote behind its checkpoint is taken back."""
        if self.writer is None:
            from tensorboardX import SummaryWriter

            self.writer = SummaryWriter(str(self.folder), purge_step=told["epoch"])
        for group in ("loss", "validation"):
            for name, value in told[group].items():
                self.writer.add_scalar(f"{group}/{name}", value, told["epoch"])
        self.writer.flush()

    def close(self) -> None:
        """Nothing was written when there was no epoch left to train."""
        if self.writer is not None:
            self.writer.close()


TRACKERS: dict[str, Callable[..., Tracker]] = {"tensorboard": TensorBoard}


def find_tracker(name: str) -> Callable[..., Tracker]:
    """One of TRACKERS, or MODULE:CLASS. ConfigError when there is none."""
    module, _, class_ = name.partition(":")
    try:
        return TRACKERS[name] if not class_ else getattr(import_module(module), class_)
    except (KeyError, ImportError, AttributeError) as error:
        raise ConfigError(
            f"there is no tracker {name!r} ({error}); take {', '.join(TRACKERS)}, or MODULE:CLASS of your own"
        ) from error


@contextmanager
def tracking(store: Store, head: str, names: Sequence[str], config: dict[str, Any]) -> Iterator[Watch]:
    """What is to be called with each epoch. Files go to `heads/HEAD/events`; to an object store when the run ends."""
    folder = _folder(head)
    with ExitStack() as end:
        local = store.local / folder if store.local else Path(end.enter_context(TemporaryDirectory()))
        trackers = [find_tracker(name)(head, local, config) for name in names]

        def watch(told: dict[str, Any]) -> None:
            for tracker in trackers:
                tracker.epoch(told)

        try:
            yield watch
        finally:
            for tracker in trackers:
                tracker.close()
            for file in () if store.local else sorted(local.iterdir()):
                store.replace(f"{folder}/{file.name}", file.read_bytes())


def forget(store: Store, head: str) -> None:
    """Remove what an earlier run under this name has written."""
    for info in store.list(_folder(head)):
        store.delete(info.path)


def _folder(head: str) -> str:
    return f"{head_folder(head)}/events"
