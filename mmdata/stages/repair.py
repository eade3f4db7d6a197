"""What mends a damaged file: what is taken away, and which command then makes it again."""

from contextlib import suppress

from mmdata.errors import NotFound
from mmdata.storage.accounts import Accounts, Finding
from mmdata.storage.dataset import Dataset
from mmdata.storage.plan import FACTS
from mmdata.storage.receipts import RECEIPT, forget, read_receipt

SAME = "run the same command again"


def take_back(dataset: Dataset, accounts: Accounts, finding: Finding, repair: bool) -> str:
    """What has to be made again, and by which command; with `repair` what stands in that command's way is deleted.

    A file that could not be read stays: it may be whole.
    """
    proof = accounts.proofs.get(finding.path)
    document = proof.document if proof else finding.path
    folder, _, name = document.rpartition("/")
    if finding.unread:
        return f"{finding.path}: see that it can be read, or delete it, and verify again"
    if document == "dataset.json":
        return _describe_again(dataset, repair)
    if RECEIPT.fullmatch(name):
        return _forget_shard(dataset, document, bool(proof), repair)
    if document == FACTS:
        return _plan_again(dataset, accounts, finding, repair)
    if name in ("receipts.json", "encoder.json") or _of_an_evaluation(name):
        if repair:
            dataset.store.delete(document)
        return f"{folder}: {'run mmdata evaluate again' if _of_an_evaluation(name) else SAME}"
    return f"{folder}: make it again with --overwrite"


def _of_an_evaluation(name: str) -> bool:
    return name == "report.json" or name.startswith("evaluation.")


def _describe_again(dataset: Dataset, repair: bool) -> str:
    if repair:
        dataset.store.delete("dataset.json")
        Dataset.create(dataset.url)
    return f"dataset.json: {'written again, nothing is left to do' if repair else 'is written again by that'}"


def _forget_shard(dataset: Dataset, document: str, readable: bool, repair: bool) -> str:
    folder, _, name = document.rpartition("/")
    if repair and readable:
        with suppress(NotFound):  # two files of one shard
            forget(dataset.store, folder, read_receipt(dataset.store, document))
    elif repair:
        dataset.store.delete(document)
    return f"{folder} shard {name.removesuffix('.json')}: {SAME}"


def _plan_again(dataset: Dataset, accounts: Accounts, finding: Finding, repair: bool) -> str:
    """A table is written again where its facts are there; a scan finds the facts again, unless rejects were tried."""
    if finding.path == FACTS:
        if repair:
            dataset.store.delete(FACTS)
        if any(path.startswith("shards/plan-") for path in accounts.infos):
            return (
                "shards: rejects were tried again, and what was planned first is lost: make all again with --overwrite"
            )
    return f"shards: {SAME}"
