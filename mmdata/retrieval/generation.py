"""An index on disk: generations of files, and the label that says which one counts.

`indexes/NAME/index.json` is the label. It is replaced in one step, last, and names the folder of its files; a
reader that has opened an older generation keeps its files. A killed build leaves a folder that no label names.
"""

import hashlib
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from mmdata.crash import point
from mmdata.errors import Conflict, Damage, NotFound
from mmdata.retrieval.rows import ROWS, open_rows
from mmdata.retrieval.vector_index import VectorIndex
from mmdata.storage.dataset import Dataset, index_folder
from mmdata.storage.features import card_from_json, card_to_json
from mmdata.storage.sealed import proof, seal, unseal
from mmdata.storage.store import is_below
from mmdata.types import EncoderCard

AGAIN = "make it again: mmdata index ... --overwrite"
GENERATION = re.compile(r"\d{6,}", re.ASCII)
END = 1 << 16  # bytes at either end of a file that are hashed whenever it is opened
SMALL = 256 << 20  # bytes of a file that is hashed whole whenever it is opened, which takes 0.2 s at most


@dataclass(frozen=True, slots=True)
class File:
    """A file as the label knows it: its size, the hash of all of it, and of its first and last 64 kB."""

    bytes: int
    sha256: str
    ends: str


@dataclass(frozen=True, slots=True)
class IndexFacts:
    """The label, without the encoder card."""

    name: str
    features: str
    kind: str
    metric: str
    parameters: dict[str, int]  # of a search, and the number of lists
    asked: dict[str, Any]  # min_recall, memory, seed
    rows: int
    memory: int  # bytes of the index that a search keeps in memory
    recall: dict[str, dict[str, float]]  # modality of the query -> recall at 1, 10 and 100
    trained_for: int  # rows that it was made for
    changed: int  # rows that were added and removed since
    due: list[str]  # why it should be built anew
    left_out: dict[str, int]  # rows of the features by reason
    seconds: float  # that this generation took
    generation: str = ""
    files: dict[str, File] = field(default_factory=dict)
    outputs: dict[str, dict[str, Any]] = field(default_factory=dict)  # size and hash of every file of the generation
    versions: dict[str, str] = field(default_factory=dict)


def read_facts(dataset: Dataset, name: str) -> tuple[IndexFacts, EncoderCard]:
    """The label of an index and the card of its features. NotFound when there is no such index."""
    path = f"{index_folder(name)}/index.json"
    try:
        data = dataset.store.read(path)
    except NotFound as error:
        there = ", ".join(index_names(dataset)) or "none yet: run mmdata index"
        raise NotFound(f"{dataset.url} has no index {name!r}; there are: {there}") from error
    try:
        about = unseal(data, dataset.store.where(path), AGAIN)
        card = card_from_json(orjson.dumps(about.pop("encoder")), dataset.store.where(path))
        files = {file: File(**facts) for file, facts in about.pop("files").items()}
        found = IndexFacts(**about, files=files)
        _check_names(found, name)
        return found, card
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damage(f"{dataset.store.where(path)} does not describe an index: {error}; {AGAIN}") from error


def read_beside(dataset: Dataset, facts: IndexFacts, name: str) -> bytes:
    """A small file of a generation. Damage when it is not the one that the label names."""
    below = f"{facts.generation}/{name}"
    path = f"{index_folder(facts.name)}/{below}"
    data = dataset.store.read(path)
    if facts.outputs.get(below) != proof({below: data})[below]:
        raise Damage(f"{dataset.store.where(path)} is not the file index.json names; {AGAIN}")
    return data


def _check_names(facts: IndexFacts, name: str) -> None:
    """ValueError when a label speaks of files elsewhere: what it names is read, and removed with its generation."""
    if facts.name != name or not GENERATION.fullmatch(facts.generation):
        raise ValueError(f"it is of generation {facts.generation!r} of {facts.name!r}")
    for file in facts.files:
        if "/" in file or not is_below(file):
            raise ValueError(f"it names {file!r}")


def index_names(dataset: Dataset) -> list[str]:
    """The finished indexes of a dataset."""
    paths = [info.path for info in dataset.store.list("indexes")]
    return sorted(path.split("/")[1] for path in paths if path.endswith("/index.json"))


def claim(dataset: Dataset, name: str) -> str:
    """A new generation's folder, which no other run has."""
    number = max([0, *_generations(dataset, name)]) + 1
    while not dataset.store.create(f"{folder_of(name, number)}/building", b""):
        number += 1
    point("index.claimed")
    return folder_of(name, number)


def folder_of(name: str, number: int) -> str:
    return f"{index_folder(name)}/{number:06d}"


def _generations(dataset: Dataset, name: str) -> set[int]:
    above = index_folder(name) + "/"
    parts = [info.path.removeprefix(above).split("/") for info in dataset.store.list(index_folder(name))]
    return {int(part[0]) for part in parts if len(part) > 1 and part[0].isdigit()}


@contextmanager
def workspace(dataset: Dataset, folder: str) -> Iterator[Path]:
    """A local folder whose files become those of a generation: the folder itself on a local disk."""
    if dataset.store.local is not None:
        yield dataset.store.local / folder
        return
    with TemporaryDirectory() as scratch:
        yield Path(scratch)
        for path in sorted(Path(scratch).iterdir()):
            dataset.store.replace(f"{folder}/{path.name}", np.memmap(path, np.uint8, "r").data)


def describe_files(folder: Path, names: Sequence[str]) -> dict[str, File]:
    """The files of a generation, hashed."""
    found = {}
    for name in names:
        with (folder / name).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        found[name] = File((folder / name).stat().st_size, digest, _ends(folder / name))
    return found


def _ends(path: Path) -> str:
    with path.open("rb") as file:
        first = file.read(END)
        file.seek(max(0, path.stat().st_size - END))
        return hashlib.sha256(first + file.read(END)).hexdigest()


def publish(dataset: Dataset, folder: str, facts: IndexFacts, card: EncoderCard, before: str) -> IndexFacts:
    """Make a generation the one that counts, and drop those older than the one `before` it.

    Raises Conflict when another run has done so since `before` ("" for none) was read.
    """
    path = f"{index_folder(facts.name)}/index.json"
    if _current(dataset, facts.name) != before:
        raise Conflict(f"another run has changed the index {facts.name!r} meanwhile; run the same command again")
    named = replace(facts, generation=folder.rpartition("/")[2])
    dataset.store.delete(f"{folder}/building")
    point("index.publish")
    named = replace(named, outputs=_outputs(dataset, folder, named))
    dataset.store.replace(path, seal({**asdict(named), "encoder": orjson.loads(card_to_json(card))}))
    point("index.published")
    for number in _generations(dataset, facts.name):
        if number < int(before or named.generation):
            remove(dataset, folder_of(facts.name, number))
    return named


def _outputs(dataset: Dataset, folder: str, facts: IndexFacts) -> dict[str, Any]:
    """Every file of the generation, below the folder of the index, with its size and hash."""
    known = {name: {"bytes": file.bytes, "sha256": file.sha256} for name, file in facts.files.items()}
    names = [info.path.rpartition("/")[2] for info in dataset.store.list(folder)]
    small = {name: dataset.store.read(f"{folder}/{name}") for name in names if name not in known and "#" not in name}
    return {f"{facts.generation}/{name}": entry for name, entry in (known | proof(small)).items()}


def _current(dataset: Dataset, name: str) -> str:
    try:
        return read_facts(dataset, name)[0].generation
    except (NotFound, Damage):
        return ""


def remove(dataset: Dataset, folder: str) -> None:
    """Delete a folder with its files."""
    for info in dataset.store.list(folder):
        dataset.store.delete(info.path)
    if dataset.store.local is not None:
        shutil.rmtree(dataset.store.local / folder, ignore_errors=True)


class LocalFiles:
    """The files of a generation on a local disk; those of an object store are fetched once, to a scratch folder.

    Raises Damage when a size or the hash of either end is not the label's; of small files, and of all with `whole`,
    the hash of it all is compared.
    """

    def __init__(self, dataset: Dataset, facts: IndexFacts, whole: bool = False) -> None:
        folder = f"{index_folder(facts.name)}/{facts.generation}"
        self.where = dataset.store.where(folder)
        local = dataset.store.local
        self._scratch = TemporaryDirectory() if local is None else None
        self.path = local / folder if local is not None else Path(self._scratch.name if self._scratch else "")
        for name, file in facts.files.items():
            if local is None:
                with dataset.store.open(f"{folder}/{name}") as source, (self.path / name).open("wb") as target:
                    shutil.copyfileobj(source, target, 1 << 22)
            self._check(name, file, whole)

    def _check(self, name: str, file: File, whole: bool) -> None:
        path = self.path / name
        if not path.exists():
            raise Damage(f"{self.where}/{name} is gone; {AGAIN}")
        good = path.stat().st_size == file.bytes and _ends(path) == file.ends
        if not good or ((whole or file.bytes <= SMALL) and describe_files(self.path, [name])[name] != file):
            raise Damage(f"{self.where}/{name} is not the file index.json names; {AGAIN}")

    def open(self, metric: str, *, mapped: bool) -> tuple[VectorIndex, pa.Table]:
        """The index and its rows; `mapped`: on the disk until they are needed, and not to be changed."""
        index, rows = VectorIndex.load(self.path, metric, mapped=mapped), open_rows(self.path / ROWS)
        if len(rows) != index.base.ntotal:
            raise Damage(f"{self.where} has {index.base.ntotal} vectors and {len(rows)} rows; {AGAIN}")
        if len(rows) and rows["key"].null_count:
            index.alive = np.asarray(rows["key"].is_valid(), bool)
        return index, rows
