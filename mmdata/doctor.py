"""Whether this machine can run mmdata: each check says what it found, or what is wrong and what to type."""

import os
import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from uuid import uuid4

from mmdata.encoders import describe
from mmdata.encoders.families import STARTERS
from mmdata.errors import ConfigError, MMDataError, StorageError
from mmdata.storage.store import Store

LIBRARIES = ("torch", "torchvision", "torchaudio", "transformers", "timm", "faiss", "pyarrow", "webdataset")
AGAIN = "install mmdata again, with the versions of constraints.txt"
EXTRAS = {
    "resvg-py": ("svg", "SVG pictures"),
    "pillow-heif": ("heif", "HEIC pictures"),
    "open-clip-torch": ("encoders", "open_clip: encoders"),
    "sentence-transformers": ("encoders", "sentence-transformers: encoders"),
    "onnx": ("onnx", "heads as ONNX"),
    "pylance": ("lance", "export to Lance"),
    "mlflow-skinny": ("mlflow", "the tracker mlflow"),
    "wandb": ("wandb", "the tracker wandb"),
}
"""Package -> the extra of mmdata that brings it, and what it is for."""


@dataclass(frozen=True, slots=True)
class Finding:
    """`state` is ok, absent (an extra that is not installed) or wrong."""

    what: str
    state: str
    found: str
    remedy: str = ""


def examine(dataset: str | None = None, ray_address: str | None = None) -> list[Finding]:
    """Every check, in order; `dataset` is written to and cleaned up, `ray_address` is connected to."""
    findings = [
        _check("machine", _machine, ""),
        *(_check(name, partial(_imported, name), AGAIN) for name in LIBRARIES),
        _check("ray", partial(version, "ray"), AGAIN),
        _check("device", _device, "ask for the CPU with --gpus-per-worker 0, or mend the driver"),
        *(_check(f"encoder {name}", partial(_weights, name), AGAIN) for name in STARTERS),
        *(_extra(package) for package in EXTRAS),
    ]
    if ray_address:
        findings.append(_check("cluster", partial(_cluster, ray_address), "start one: ray start --head"))
    if dataset:
        findings.append(_check("dataset", partial(_writable, dataset), "choose another place, or mend its permissions"))
    return findings


def _check(what: str, look: Callable[[], str], remedy: str) -> Finding:
    try:
        return Finding(what, "ok", look())
    except (ImportError, OSError, RuntimeError, AttributeError, PackageNotFoundError, MMDataError) as error:
        return Finding(what, "wrong", f"{type(error).__name__}: {str(error).splitlines()[0]}", remedy)


def _machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return f"Python {platform.python_version()}, {os.cpu_count()} cores, {memory:.0f} GB, {platform.platform()}"


def _imported(name: str) -> str:
    """The version, after a real import: a build for another CUDA fails only there."""
    return str(import_module(name).__version__)


def _weights(name: str) -> str:
    """A starter's fingerprint, after its weights were hashed."""
    return f"fingerprint {describe(name).fingerprint[:12]}"


def _device() -> str:
    import torch

    if torch.cuda.is_available():
        torch.ones(1, device="cuda")
        return ", ".join(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count()))
    if os.path.exists("/dev/nvidia0"):  # noqa: PTH110  a device, not a file of ours
        raise RuntimeError("there is a GPU and torch cannot use it")
    return "no GPU: encoders run on the CPU"


def _extra(package: str) -> Finding:
    extra, what = EXTRAS[package]
    try:
        return Finding(what, "ok", f"{package} {version(package)}")
    except PackageNotFoundError:
        return Finding(what, "absent", f"{package} is not installed", f"pip install 'mmdata[{extra}]'")


def _cluster(address: str) -> str:
    from mmdata.cluster.connect import connected, knock

    try:
        knock(address)
    except OSError as error:
        raise ConfigError(f"nobody answers at {address}: {error.strerror}") from error
    with connected(address):
        return f"{address} answers"


def _writable(url: str) -> str:
    """Write, read and delete a small file, as a stage would."""
    store, probe = Store(url), f"doctor-{uuid4().hex}"
    try:
        store.create(probe, b"mmdata")
        if store.read(probe) != b"mmdata":
            raise StorageError(f"{store.where(probe)} reads back other bytes than were written")
    finally:
        store.delete(probe)
    if store.local is None:
        return f"{store.url} can be written and read"
    return f"{store.url} can be written and read, {shutil.disk_usage(store.local).free / 1e9:.1f} GB free"
