"""Features that were made from what has changed since."""

from collections.abc import Mapping
from shlex import quote

from mmdata.errors import Conflict
from mmdata.storage.dataset import SHARDS, Dataset, features_folder
from mmdata.storage.features import Features
from mmdata.storage.receipts import read_receipts
from mmdata.types import Receipt

Receipts = Mapping[str, Receipt]


def stale_shards(dataset: Dataset, features: Receipts, shards: Receipts) -> set[str]:
    """Shards of a feature set whose samples are others now or gone, or the features that a head made them from others.

    What is not in the dataset at all does not count: features may be passed on without their shards.
    """
    made = [receipt for receipt in features.values() if receipt.inputs]
    if all(receipt.stage == "extract" for receipt in made):
        now = {name: receipt.content for name, receipt in shards.items()}
        return {receipt.shard for receipt in made if shards and receipt.inputs != now.get(receipt.shard)}
    names = {_set_of(file) for receipt in made for file in receipt.inputs} & set(dataset.names("features"))
    behind = {name: read_receipts(dataset.store, features_folder(name)) for name in sorted(names)}
    there = {
        f"{name}/{file}": digest
        for name, receipts in behind.items()
        for receipt in receipts.values()
        for file, digest in receipt.content.items()
    }
    changed = {
        receipt.shard
        for receipt in made
        for file, digest in receipt.inputs.items()
        if there.get(file, digest) != digest
    }
    return changed.union(*(stale_shards(dataset, receipts, shards) for receipts in behind.values()))


def _set_of(file: str) -> str:
    return file.partition("/")[0]


def check_fresh(features: Features) -> None:
    """Conflict when a shard of the features is stale: their rows would name samples that are others now."""
    dataset = features.dataset
    found = stale_shards(dataset, features.receipts, read_receipts(dataset.store, SHARDS))
    if found:
        raise Conflict(
            f"{len(found)} of {len(features.receipts)} shards of the features {features.name!r} were made from what "
            f"has changed since, the first is {min(found)}; make them again with --overwrite by the command that made "
            f"them; see: mmdata status {quote(dataset.url)}"
        )
