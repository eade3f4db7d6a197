"""What a dataset holds, file by file: which document proves it, and what nothing proves."""

import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from mmdata.errors import Damage, NotFound, StorageError
from mmdata.storage.dataset import SHARDS, Dataset
from mmdata.storage.receipts import RECEIPT, read_receipt
from mmdata.storage.sealed import proven, unseal
from mmdata.storage.store import FileInfo
from mmdata.types import Output

FOLDERS = (SHARDS, "features", "heads", "indexes", "predictions")
TORN = re.compile(r"dataset\.json#\d+")  # what a killed process leaves of a file that it was writing
READERS = 16
CARDS = {"features": "encoder.json", SHARDS: "plan.json"}
"""The document without which the receipts of a folder mean nothing."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A file that is not what was written, and how that shows; `unread` where it may be, and could not be read."""

    path: str
    problem: str
    unread: bool = False


@dataclass(frozen=True, slots=True)
class Proof:
    """What a file must be, and the document that says so."""

    output: Output
    document: str


@dataclass(frozen=True, slots=True)
class Accounts:
    """`infos` are all files by path, `proofs` those that a document names, `loose` those that none does."""

    infos: dict[str, FileInfo]
    documents: list[str]
    proofs: dict[str, Proof]
    damaged: list[Finding]

    @property
    def loose(self) -> list[FileInfo]:
        return [info for path, info in self.infos.items() if path not in self.proofs and not path.endswith(".json")]


def account(dataset: Dataset) -> Accounts:
    """Read every document of a dataset; the other files are only listed."""
    torn = [info for info in dataset.store.list_here() if TORN.fullmatch(info.path)]
    infos = {info.path: info for info in torn} | {i.path: i for folder in FOLDERS for i in dataset.store.list(folder)}
    documents = ["dataset.json", *(path for path in infos if path.endswith(".json"))]
    with ThreadPoolExecutor(READERS) as pool:
        read = list(pool.map(lambda path: _read(dataset, path), documents))
    proofs: dict[str, Proof] = {}
    for path, found in zip(documents, read, strict=True):
        folder = path.rpartition("/")[0]
        if not isinstance(found, Finding):
            proofs |= {f"{folder}/{name}": Proof(output, path) for name, output in found.items()}
    damaged = [found for found in read if isinstance(found, Finding)]
    return Accounts(infos, documents, proofs, [*damaged, *_without_card(documents)])


def _read(dataset: Dataset, path: str) -> dict[str, Output] | Finding:
    try:
        if RECEIPT.fullmatch(path.rpartition("/")[2]):
            return read_receipt(dataset.store, path).outputs
        return proven(unseal(dataset.store.read(path), dataset.store.where(path)))
    except (Damage, StorageError, KeyError) as error:
        unread = isinstance(error, StorageError) and not isinstance(error, NotFound)
        return Finding(path, str(error).removeprefix(f"{dataset.store.where(path)} "), unread)


def _without_card(documents: Iterable[str]) -> list[Finding]:
    there = set(documents)
    folders = {path.rpartition("/")[0] for path in documents if path.rpartition("/")[2][:6].isdigit()}
    cards = {f"{folder}/{CARDS[kind]}" for folder in folders if (kind := folder.partition("/")[0]) in CARDS}
    return [Finding(card, "is gone, and shards that were made by it are there") for card in sorted(cards - there)]
