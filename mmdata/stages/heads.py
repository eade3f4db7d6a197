"""What the stages that run a head over shards have in common: project and predict."""

from collections.abc import Collection, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from mmdata.cluster import Task
from mmdata.errors import ConfigError
from mmdata.fusion.heads import Head
from mmdata.fusion.pack import Pack, pack_tables
from mmdata.storage.dataset import Dataset
from mmdata.storage.features import Features
from mmdata.storage.receipts import tally
from mmdata.types import Outcome, Receipt, Reject


def head_features(
    dataset: Dataset, head: Head, given: Mapping[str, str], missing: Collection[str] = ()
) -> dict[str, Features]:
    """The feature sets that a head takes: `given` by input, else those that it was made from, by name.

    Inputs in `missing` are left out. Raises Conflict when a set is of another encoder than the head's, NotFound when
    it is not there, ConfigError for an input that the head has not, or when none is left.
    """
    for name in [*given, *missing]:
        if name not in head.inputs:
            raise ConfigError(f"the head {head.name!r} has no input {name!r}; there are: {', '.join(head.inputs)}")
    features = {
        name: Features(dataset, given.get(name, card.name)) for name, card in head.inputs.items() if name not in missing
    }
    if not features:
        raise ConfigError(f"every input of the head {head.name!r} is missing; leave one of them in")
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


def sample_ids(features: Mapping[str, Features], shard: str) -> list[int]:
    """The samples that one shard of any of the feature sets has."""
    tables = [set_.read(set_.receipts[shard], ["id"]) for set_ in features.values() if shard in set_.receipts]
    return sorted({sample for table in tables for sample in table["id"].to_pylist()})


def read_shard(head: Head, features: Mapping[str, Features], task: Task) -> tuple[Pack, list[Reject]]:
    """The rows of one shard of all feature sets that have it, joined by key; and what the task leaves out."""
    tokens = head.model.get("tokens", ())
    tables = {
        name: (set_, name in tokens, set_.read(set_.receipts[task.shard]))
        for name, set_ in features.items()
        if task.shard in set_.receipts
    }
    if task.only is None and not task.without:
        return pack_tables(tables), []
    lost: dict[int, str] = {}
    for name, (set_, has_tokens, table) in tables.items():
        left_out = pc.is_in(table["id"], pa.array(task.without, pa.int64()))
        lost |= {row["id"]: row["key"] for row in table.select(["id", "key"]).filter(left_out).to_pylist()}
        keep = pc.invert(left_out) if task.only is None else pc.is_in(table["id"], pa.array(task.only, pa.int64()))
        tables[name] = (set_, has_tokens, table.filter(keep))
    rejects = [
        Reject(sample, key, "", "", Outcome.REJECTED, task.without[sample], task.told(sample))
        for sample, key in sorted(lost.items())
    ]
    return pack_tables(tables), rejects


def head_receipt(
    stage: str,
    fingerprint: str,
    shard: str,
    inputs: dict[str, str],
    rows: tuple[int, int],
    rejects: list[Reject],
    seconds: float,
) -> Receipt:
    """The receipt of a shard that a head made: rows seen and rows with an output, which the others lack inputs for."""
    seen, made = rows
    return Receipt(
        stage=stage,
        shard=shard,
        fingerprint=fingerprint,
        inputs=inputs,
        outputs={},
        rows_in=made + len(rejects),
        rows_out=made,
        absent=seen - made,
        rejected=tally(rejects, Outcome.REJECTED),
        repaired={},
        seconds={stage: seconds},
    )
