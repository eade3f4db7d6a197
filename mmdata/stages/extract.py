"""Shards -> features: each sample is read and decoded once, for all encoders."""

from contextlib import suppress
from dataclasses import replace
from functools import partial
from shlex import quote
from typing import Any

from mmdata.cluster import Resources
from mmdata.config import ExtractConfig
from mmdata.crash import point
from mmdata.encoders import Request, Windows, describe
from mmdata.errors import ConfigError, NotFound
from mmdata.heap import keep_freed_memory
from mmdata.stages import Job, Summary, Watch, run_job, silent
from mmdata.stages.encode import Work, encode_shard, setup
from mmdata.storage.dataset import SHARDS, Dataset, features_folder
from mmdata.storage.features import check_claim, claim, finished
from mmdata.storage.plan import read_plan
from mmdata.storage.receipts import read_receipts, write_summary
from mmdata.storage.shards import read_sample_table
from mmdata.types import EncoderCard, Receipt


def extract(config: ExtractConfig, resources: Resources, watch: Watch = silent) -> Summary:
    """Make the features of every encoder for every finished shard that has none yet.

    Raises NotFound without shards, Conflict when a feature set of the same name came from another encoder
    or from other shards, TooManyRejects above `config.max_reject_rate`.
    """
    keep_freed_memory()
    dataset = Dataset.open(config.dataset)
    shards = _finished_shards(dataset)
    cards = _cards(config, resources)
    for card in cards:
        claim(dataset, card, config.overwrite)
    point("extract.claimed")
    content = {name: receipt.content for name, receipt in shards.items()}
    done = {card.name: finished(dataset, card, content, config.overwrite) for card in cards}
    missing = {name: tuple(c for c in cards if name not in done[c.name]) for name in shards}
    job = Job(
        stage="extract",
        dataset=dataset.url,
        where=dataset.url,
        setup=partial(setup, Work(dataset, cards, shards, missing, config.batch_size), resources.gpus),
        work=encode_shard,
        samples=lambda name: read_sample_table(dataset, shards[name])["id"].to_pylist(),
        todo=[name for name, left in missing.items() if left],
        done=[receipt for receipts in done.values() for receipt in receipts.values()],
        total_rows=len(cards) * sum(receipt.rows_out for receipt in shards.values()),
        next=_next(config.dataset, cards),
    )
    summary = run_job(job, resources, config.max_reject_rate, watch)
    for card in cards:
        write_summary(dataset.store, features_folder(card.name), changed=bool(job.todo))
    facts: dict[str, Any] = {"features": [card.name for card in cards]}
    if summary.rows_in:
        return replace(summary, facts=facts)
    parts = sorted({card.modality for card in cards})
    return replace(summary, facts=facts | {"nothing to do": f"no sample has a part of {', '.join(parts)}"}, next="")


def describe_extraction(config: ExtractConfig, resources: Resources) -> dict[str, dict[str, Any]]:
    """What `--dry-run` says of each feature set; nothing is written. Raises the Conflict that `extract` would."""
    dataset = Dataset.open(config.dataset)
    content = {name: receipt.content for name, receipt in _finished_shards(dataset).items()}
    return {card.name: _outlook(dataset, card, content, config.overwrite) for card in _cards(config, resources)}


def _outlook(
    dataset: Dataset, card: EncoderCard, content: dict[str, dict[str, str]], overwrite: bool
) -> dict[str, Any]:
    folder = features_folder(card.name)
    if overwrite:  # `finished` would remove what is to be made again
        there = read_receipts(dataset.store, folder)
        done = [n for n, r in there.items() if (r.fingerprint, r.inputs) == (card.fingerprint, content.get(n))]
    else:
        with suppress(NotFound):  # nobody has claimed it yet
            check_claim(dataset, card)
        done = list(finished(dataset, card, content))
    todo = len(content.keys() - set(done))
    facts = {"spec": card.spec, "dim": card.dim, "dtype": card.dtype, "space": card.space}
    return facts | {"shards done": len(content) - todo, "shards to do": todo}


def _next(dataset: str, cards: list[EncoderCard]) -> str:
    first = cards[0]
    others = [card for card in cards if card.modality is not first.modality and card.space != first.space]
    if not others:
        return f"mmdata index {quote(dataset)} --features {first.name}"
    return f"mmdata align {quote(dataset)} --features {first.name} {others[0].name} --name NAME"


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
    request = Request(
        precision=precision,
        dtype=config.dtype,
        windows=Windows(config.windows),
        window_seconds=config.window_seconds,
        tokens=config.tokens,
        min_side=config.min_side,
        background=config.background,
    )
    cards = [describe(spec, request) for spec in config.encoders]
    names = [card.name for card in cards]
    if len(set(names)) < len(names):
        raise ConfigError(f"two encoders would write to one folder: {', '.join(names)}; name them: NAME=SPEC")
    return cards
