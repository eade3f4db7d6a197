"""Shards -> features: each sample is read and decoded once, for all encoders."""

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from mmdata.cluster import Resources, threads_of
from mmdata.config import ExtractConfig
from mmdata.encoders import Request, describe
from mmdata.errors import ConfigError, Conflict, NotFound, conflict
from mmdata.stages import Job, Summary, Watch, run_job, silent
from mmdata.stages.encode import Work, encode_shard, setup
from mmdata.storage.dataset import SHARDS, Dataset, features_folder
from mmdata.storage.features import card_from_json, card_to_json
from mmdata.storage.plan import read_plan
from mmdata.storage.receipts import read_receipts, write_summary
from mmdata.types import EncoderCard, Receipt


def extract(config: ExtractConfig, resources: Resources, watch: Watch = silent) -> Summary:
    """Make the features of every encoder for every finished shard that has none yet.

    Raises NotFound without shards, Conflict when a feature set of the same name came from another encoder
    or from other shards, TooManyRejects above `config.max_reject_rate`.
    """
    dataset = Dataset.open(config.dataset)
    shards = _finished_shards(dataset)
    cards = _cards(config, resources)
    for card in cards:
        _claim(dataset, card, config.overwrite)
    done = {card.name: _done(dataset, card, shards) for card in cards}
    missing = {name: tuple(c for c in cards if name not in done[c.name]) for name in shards}
    job = Job(
        stage="extract",
        where=dataset.url,
        setup=partial(setup, Work(dataset, cards, shards, missing, config.batch_size), resources, threads_of(resources)),
        work=encode_shard,
        todo=[name for name, left in missing.items() if left],
        done=[receipt for receipts in done.values() for receipt in receipts.values()],
        total_rows=len(cards) * sum(receipt.rows_out for receipt in shards.values()),
        next=_next(config.dataset, cards),
    )
    summary = run_job(job, resources, config.max_reject_rate, watch)
    for card in cards if job.todo else []:
        folder = features_folder(card.name)
        write_summary(dataset.store, folder, read_receipts(dataset.store, folder).values())
    return replace(summary, facts={"features": [card.name for card in cards]})


def resolve_gpus(gpus: float | None, address: str | None) -> float:
    """GPUs of a worker: as asked, else one where this machine has any and no other cluster is meant."""
    if gpus is not None:
        return gpus
    return 1.0 if address is None and any(Path("/dev").glob("nvidia[0-9]*")) else 0.0


def _next(dataset: str, cards: list[EncoderCard]) -> str:
    if len(cards) == 1:
        return f"mmdata index {dataset} --features {cards[0].name}"
    return f"mmdata align {dataset} --features {cards[0].name} {cards[1].name} --name NAME"


def _finished_shards(dataset: Dataset) -> dict[str, Receipt]:
    receipts = read_receipts(dataset.store, SHARDS)
    plan = read_plan(dataset)
    if plan is None or len(receipts) < plan.shards:
        total = "no" if plan is None else f"{len(receipts)} of {plan.shards}"
        raise NotFound(f"{dataset.url} has {total} finished shards; run mmdata shard SOURCE {dataset.url}")
    return receipts


def _cards(config: ExtractConfig, resources: Resources) -> list[EncoderCard]:
    auto = "bf16" if resources.gpus else "fp32"
    precision = auto if config.precision == "auto" else config.precision
    cards = [describe(spec, Request(precision, config.dtype)) for spec in config.encoders]
    names = [card.name for card in cards]
    if len(set(names)) < len(names):
        raise ConfigError(f"two encoders would write to one folder: {', '.join(names)}; name them: NAME=SPEC")
    return cards


def _claim(dataset: Dataset, card: EncoderCard, overwrite: bool) -> None:
    """Put the card in the feature folder, or make sure that the one there is the same."""
    folder = features_folder(card.name)
    path = f"{folder}/encoder.json"
    if dataset.store.create(path, card_to_json(card)):
        return
    found = card_from_json(dataset.store.read(path), path)
    if found.fingerprint == card.fingerprint:
        return
    if not overwrite:
        remedy = f"name this one otherwise (--encoder NEW={card.spec}), or --overwrite"
        raise conflict(f"{dataset.store.where(folder)}", asdict(found), asdict(card), remedy)
    _clear(dataset, folder)
    dataset.store.create(path, card_to_json(card))


def _clear(dataset: Dataset, folder: str) -> None:
    for info in dataset.store.list(folder):
        dataset.store.delete(info.path)


def _done(dataset: Dataset, card: EncoderCard, shards: dict[str, Receipt]) -> dict[str, Receipt]:
    receipts = read_receipts(dataset.store, features_folder(card.name))
    for name, receipt in receipts.items():
        made_of = shards[name].content if name in shards else {}
        if receipt.inputs != made_of:
            raise Conflict(
                f"features {card.name!r} of shard {name} were made from another shard: there "
                f"{receipt.inputs}, now {made_of}; --overwrite, after removing {features_folder(card.name)}"
            )
    return receipts
