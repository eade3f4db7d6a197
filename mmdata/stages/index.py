"""Features -> FAISS index: made, brought up to date, thinned out and checked by the same command."""

import time
from dataclasses import dataclass

from mmdata.cluster import Resources
from mmdata.config import IndexConfig
from mmdata.errors import Damage, NotFound, TooManyRejects, conflict
from mmdata.retrieval.auto import Trial, choose, unreachable
from mmdata.retrieval.build import Recipe, left_out
from mmdata.retrieval.generation import IndexFacts, claim, publish, read_facts, remove, workspace
from mmdata.retrieval.kinds import Terms, bytes_for
from mmdata.retrieval.label import check, finish
from mmdata.retrieval.living import Made, Told, build, changes, extend, read_deleted, read_parts
from mmdata.retrieval.measure import worst
from mmdata.stages import Summary, Watch, silent
from mmdata.stages.stale import check_fresh
from mmdata.storage.dataset import Dataset, index_folder
from mmdata.storage.features import Features
from mmdata.types import EncoderCard


@dataclass(frozen=True, slots=True)
class _There:
    """The index that is there."""

    facts: IndexFacts
    card: EncoderCard
    deleted: frozenset[str]


def index(config: IndexConfig, resources: Resources, watch: Watch = silent) -> Summary:
    """Build the index of a feature set, or bring the one that is there up to date.

    Raises NotFound without features, Conflict when they are stale or an index of this name was made with other options,
    ConfigError when recall and memory cannot both be met, TooManyRejects when too many vectors cannot be indexed.
    """
    since = time.monotonic()
    dataset = Dataset.open(config.dataset)
    if config.check:
        facts, recall = check(dataset, config.name or config.features, config.seed)
        return _summary(config, dataset, facts, since, {"recall now": recall})
    features = Features(dataset, config.features)
    check_fresh(features)
    there = _there(dataset, config)
    if there is None or config.overwrite:
        facts = _new(config, features, there, resources, watch)
    else:
        facts = _newer(config, features, there, resources, watch)
    return _summary(config, dataset, facts, since, {})


def _there(dataset: Dataset, config: IndexConfig) -> _There | None:
    try:
        facts, card = read_facts(dataset, config.name or config.features)
    except NotFound:
        return None
    except Damage:
        if config.overwrite:
            return None
        raise
    try:
        return _There(facts, card, read_deleted(dataset, facts))
    except (NotFound, Damage) as error:
        if config.overwrite:  # what was deleted is known no more
            return _There(facts, card, frozenset())
        raise Damage(f"{error}; make the index again with --overwrite, and --delete what had been deleted") from error


def _new(
    config: IndexConfig, features: Features, there: _There | None, resources: Resources, watch: Watch
) -> IndexFacts:
    """Every shard, in the first kind that holds what was asked. What was deleted before stays out."""
    terms, name, since = _terms(config), config.name or config.features, time.monotonic()
    rows, dim = sum(receipt.rows_out for receipt in features.receipts.values()), features.card.dim
    if rows == 0:
        raise NotFound(f"features {features.name!r} have no vectors to index")
    kinds: list[str] = [config.kind]
    if config.kind == "auto":
        kinds = choose(features, rows, config.metric, terms)
    elif bytes_for(config.kind, rows, dim) > terms.memory:
        raise unreachable([], rows, dim, terms)
    deleted = (there.deleted if there else frozenset()) | frozenset(config.delete)
    trials = []
    for kind in kinds:
        recipe = Recipe(features, claim(features.dataset, name), kind, config.metric, deleted)
        with workspace(features.dataset, recipe.folder) as place:
            made = build(recipe, rows, terms, resources, _telling(watch, len(features.receipts)), place)
            _check_rejects(made, config)
            facts = finish(recipe, name, made, terms, since, place)
        if not facts.due:
            return publish(
                features.dataset, recipe.folder, facts, features.card, there.facts.generation if there else ""
            )
        trials.append(Trial(kind, worst(facts.recall), facts.memory))
        remove(features.dataset, recipe.folder)
    raise unreachable(trials, rows, dim, terms)


def _newer(config: IndexConfig, features: Features, there: _There, resources: Resources, watch: Watch) -> IndexFacts:
    """The index that is there with the shards that are new and without the rows that are to go."""
    _check_options(config, features, there)
    delete = frozenset(config.delete) - there.deleted
    change = changes(features, read_parts(features.dataset, there.facts), delete)
    if not change:
        return there.facts
    since, old = time.monotonic(), there.facts
    folder = claim(features.dataset, old.name)
    recipe = Recipe(features, folder, old.kind, old.metric, there.deleted | delete)
    with workspace(features.dataset, folder) as place:
        made = extend(recipe, old, change, resources, _telling(watch, len(change.fresh)), place)
        _check_rejects(made, config)
        facts = finish(recipe, old.name, made, _terms(config), since, place)
    return publish(features.dataset, folder, facts, features.card, old.generation)


def _terms(config: IndexConfig) -> Terms:
    return Terms(config.min_recall, config.memory, config.seed)


def _telling(watch: Watch, shards: int) -> Told:
    return lambda done, rows: watch("index", done, shards, rows)


def _check_options(config: IndexConfig, features: Features, there: _There) -> None:
    found = there.facts
    has = {
        "features": found.features,
        "encoder": there.card.fingerprint,
        "kind": found.kind,
        "metric": found.metric,
        **found.asked,
    }
    asked = {
        "features": features.name,
        "encoder": features.card.fingerprint,
        "kind": found.kind if config.kind == "auto" else config.kind,
        "metric": config.metric,
        "min_recall": config.min_recall,
        "memory": config.memory,
        "seed": config.seed,
    }
    if has != asked:
        raise conflict(f"the index {found.name!r}", has, asked, "choose another --name, or --overwrite")


def _check_rejects(made: Made, config: IndexConfig) -> None:
    bad, rows = left_out(made.parts), sum(part.rows_in for part in made.parts)
    if sum(bad.values()) > config.max_reject_rate * rows:
        why = ", ".join(f"{count} {reason}" for reason, count in bad.items())
        raise TooManyRejects(
            f"{sum(bad.values())} of {rows} vectors of {config.features!r} cannot be indexed, more than "
            f"--max-reject-rate {config.max_reject_rate:g} allows: {why}"
        )


def _summary(
    config: IndexConfig, dataset: Dataset, facts: IndexFacts, since: float, more: dict[str, object]
) -> Summary:
    _, card = read_facts(dataset, facts.name)
    query = next((m for m in card.towers if m == "text"), next(iter(card.towers), "key"))
    again = f"mmdata index {config.dataset} --features {facts.features} --name {facts.name} --overwrite"
    return Summary(
        stage="index",
        where=dataset.store.where(index_folder(facts.name)),
        shards=len(read_parts(dataset, facts)),
        shards_before=0,
        rows_in=facts.rows + sum(facts.left_out.values()),
        rows_out=facts.rows,
        absent=0,
        rejected=facts.left_out,
        repaired={},
        seconds=time.monotonic() - since,
        phases={},
        rows_now=0,
        next=again if facts.due else f"mmdata search {config.dataset} --index {facts.name} --{query} ...",
        facts={
            "kind": facts.kind,
            "metric": facts.metric,
            **facts.parameters,
            "MB in memory": round(facts.memory / 1e6, 3),
            "recall": facts.recall,
            "generation": int(facts.generation),
            "a rebuild is due": facts.due,
            **more,
        },
    )
