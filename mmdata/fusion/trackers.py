"""Where the figures of a run go while it trains: TensorBoard's event files, and whatever else is asked for."""

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from mmdata.errors import ConfigError
from mmdata.fusion.train import Watch
from mmdata.storage.dataset import head_folder
from mmdata.storage.store import Store

PROJECT = "mmdata"


class Tracker(Protocol):
    """What follows a run. It is built with the name of the head, a local folder for files, and the config."""

    def epoch(self, told: dict[str, Any]) -> None:
        """`epoch`, the number; `loss` by task; `validation` by TASK/FIGURE. A run that goes on starts behind 0."""

    def close(self, whole: bool) -> None:
        """The run has ended; it is not `whole` where an error or a signal cut it off."""


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
        for name, value in _flat_figures(told).items():
            self.writer.add_scalar(name, value, told["epoch"])
        self.writer.flush()

    def close(self, whole: bool) -> None:
        """Nothing was written when there was no epoch left to train."""
        if self.writer is not None:
            self.writer.close()


class MlFlow:
    """A run of the experiment `mmdata`, where MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME do not say another."""

    def __init__(self, name: str, folder: Path, config: dict[str, Any]) -> None:
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # which is for results
        self.mlflow = _package("mlflow")
        self.name, self.config, self.run = name, config, folder / "mlflow.run"
        self.started = False

    def epoch(self, told: dict[str, Any]) -> None:
        """Losses and validation figures as metrics, the config as parameters; a run that goes on is one run."""
        try:
            if not self.started:
                self._start()
            named = {re.sub(r"[^\w./ -]", " ", name): value for name, value in _flat_figures(told).items()}
            self.mlflow.log_metrics(named, step=told["epoch"])
        except self.mlflow.MlflowException as error:
            where = self.mlflow.get_tracking_uri()
            raise ConfigError(f"mlflow at {where}: {error}; MLFLOW_TRACKING_URI names a server") from error

    def _start(self) -> None:
        self.mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT))
        before = self.run.read_text() if self.run.exists() else None
        started = self.mlflow.start_run(run_id=before, run_name=None if before else self.name)
        _remember(self.run, started.info.run_id)
        self.mlflow.log_params(_flat(self.config))
        self.started = True

    def close(self, whole: bool) -> None:
        """FINISHED, or KILLED until the run goes on."""
        if self.started:
            self.mlflow.end_run("FINISHED" if whole else "KILLED")


class Wandb:
    """A run of the project `mmdata`, where WANDB_PROJECT does not say another; WANDB_MODE=offline needs no account."""

    def __init__(self, name: str, folder: Path, config: dict[str, Any]) -> None:
        self.wandb = _package("wandb")
        self.name, self.config, self.id = name, config, folder / "wandb.run"
        self.run: Any = None

    def epoch(self, told: dict[str, Any]) -> None:
        """Losses and validation figures, and the config; a run that goes on is one run."""
        if self.run is None:
            before = self.id.read_text() if self.id.exists() else None
            project = os.environ.get("WANDB_PROJECT", PROJECT)
            try:
                self.run = self.wandb.init(
                    project=project, name=self.name, id=before, resume="allow", config=self.config
                )
            except self.wandb.Error as error:
                raise ConfigError(f"wandb: {error}; wandb login, or WANDB_MODE=offline") from error
            _remember(self.id, self.run.id)
        self.run.log(_flat_figures(told), step=told["epoch"])

    def close(self, whole: bool) -> None:
        """Sends what is left."""
        if self.run is not None:
            self.run.finish(exit_code=0 if whole else 1)


def _package(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise ConfigError(f"the tracker {name} needs a package: pip install 'mmdata[{name}]'") from error


def _remember(file: Path, run: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(run)


def _flat_figures(told: Mapping[str, Any]) -> dict[str, float]:
    return {f"{group}/{name}": value for group in ("loss", "validation") for name, value in told[group].items()}


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A tree as KEY.KEY: value."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


TRACKERS: dict[str, Callable[..., Tracker]] = {"tensorboard": TensorBoard, "mlflow": MlFlow, "wandb": Wandb}


def find_tracker(name: str) -> Callable[..., Tracker]:
    """One of TRACKERS, or MODULE:CLASS, from the folder one is in, too. ConfigError when there is none."""
    module, _, class_ = name.partition(":")
    if class_ and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        found: Any = TRACKERS[name] if not class_ else getattr(import_module(module), class_)
    except (KeyError, ValueError, ImportError, AttributeError) as error:
        raise ConfigError(
            f"there is no tracker {name!r} ({error}); take {', '.join(TRACKERS)}, or MODULE:CLASS of your own"
        ) from error
    if not (isinstance(found, type) and hasattr(found, "epoch") and hasattr(found, "close")):
        raise ConfigError(f"the tracker {name!r} is no class with epoch(told) and close(whole)")
    return found


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

        whole = False
        try:
            yield watch
            whole = True
        finally:
            for tracker in trackers:
                tracker.close(whole)
            for file in () if store.local else sorted(local.iterdir()):
                store.replace(f"{folder}/{file.name}", file.read_bytes())


def forget(store: Store, head: str) -> None:
    """Remove what an earlier run under this name has written."""
    for info in store.list(_folder(head)):
        store.delete(info.path)


def _folder(head: str) -> str:
    return f"{head_folder(head)}/events"
