"""Processes that work on one thing together, joined by torch.distributed: Ray Train places and joins them."""

import os
from collections.abc import Callable
from tempfile import TemporaryDirectory
from typing import Any

from mmdata.cluster import Resources, allow_threads
from mmdata.cluster.connect import connected, last_line
from mmdata.errors import MMDataError, ModelError

START_SECONDS = "600"  # Ray gives up after a minute, in which a busy machine does not even import torch


def run_together(work: Callable[[], None], resources: Resources) -> None:
    """Call `work` in each of `resources.workers` processes, which form a group: nccl with GPUs, else gloo.

    Ends when all have. Raises the error of the one that failed; ModelError when a process died.
    """
    from ray.train import RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchConfig, TorchTrainer

    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", START_SECONDS)
    each = {"CPU": resources.cpus} | ({"GPU": resources.gpus} if resources.gpus else {})
    scaling = ScalingConfig(num_workers=resources.workers or 1, use_gpu=bool(resources.gpus), resources_per_worker=each)
    with connected(resources.address), TemporaryDirectory() as folder:
        trainer = TorchTrainer(
            _work,
            train_loop_config={"work": work, "threads": max(1, int(resources.cpus))},
            scaling_config=scaling,
            torch_config=TorchConfig(backend="nccl" if resources.gpus else "gloo"),
            run_config=RunConfig(storage_path=folder),
        )
        try:
            trainer.fit()
        except TrainingFailedError as error:
            raise _cause(error) from error


def _work(config: dict[str, Any]) -> None:
    import torch

    allow_threads(config["threads"])
    torch.set_num_threads(config["threads"])
    config["work"]()


def _cause(error: Exception) -> MMDataError:
    """What a process raised, which Ray wraps; one that lost its neighbours says so, and that is not the cause."""
    failures = [getattr(one, "_base_exc", one) for one in getattr(error, "worker_failures", {}).values()]
    ours = [one for one in failures if isinstance(one, MMDataError)]
    return ours[0] if ours else ModelError(f"training together failed: {last_line(error)}")
