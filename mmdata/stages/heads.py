"""What the stages that run a head over shards have in common: project and predict."""

from collections.abc import Mapping

from mmdata.errors import ConfigError
from mmdata.fusion.heads import Head
from mmdata.fusion.pack import Pack, pack_tables
from mmdata.storage.dataset import Dataset
from mmdata.storage.features import Features
from mmdata.types import Receipt


def head_features(dataset: Dataset, head: Head, given: Mapping[str, str]) -> dict[str, Features]:
    """The feature sets that a head takes: `given` by input, else those that it was made from, by name.

    Raises Conflict when one is of another encoder than the head's, NotFound when it is not there.
    """
    for name in given:
        if name not in head.inputs:
            raise ConfigError(f"the head {head.name!r} has no input {name!r}; there are: {', '.join(head.inputs)}")
    features = {name: Features(dataset, given.get(name, card.name)) for name, card in head.inputs.items()}
    for name, set_ in features.items():
        head.check_input(name, set_.card)
    return features


def shard_content(features: Mapping[str, Features]) -> dict[str, dict[str, str]]:
    """What each shard of some output is made of: FEATURES/FILE -> sha256."""
    content: dict[str, dict[str, str]] = {}
    for set_ in features.values():
        for shard, receipt in set_.receipts.items():
            files = {f"{set_.name}/{file}": digest for file, digest in receipt.content.items()}
            content.setdefault(shard, {}).update(files)
    return dict(sorted(content.items()))


def read_shard(head: Head, features: Mapping[str, Features], shard: str) -> Pack:
    """The rows of one shard of all feature sets that have it, joined by key."""
    tokens = head.model.get("tokens", ())
    tables = {
        name: (set_, name in tokens, set_.read(set_.receipts[shard]))
        for name, set_ in features.items()
        if shard in set_.receipts
    }
    return pack_tables(tables)


def head_receipt(
    stage: str, fingerprint: str, shard: str, inputs: dict[str, str], rows: tuple[int, int], seconds: float
) -> Receipt:
    """The receipt of a shard that a head made: rows seen and rows with an output, which the others lack inputs for."""
    seen, made = rows
    return Receipt(
        stage=stage,
        shard=shard,
        fingerprint=fingerprint,
        inputs=inputs,
        outputs={},
        rows_in=made,
        rows_out=made,
        absent=seen - made,
        rejected={},
        repaired={},
        seconds={stage: seconds},
    )
