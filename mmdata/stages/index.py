"""Features -> FAISS index."""

import time

from mmdata.cluster import Resources
from mmdata.config import IndexConfig
from mmdata.errors import NotFound, conflict
from mmdata.retrieval.index import build
from mmdata.retrieval.search import IndexFacts, read_facts, write_index
from mmdata.stages import Summary, Watch, silent
from mmdata.storage.dataset import Dataset, index_folder
from mmdata.storage.features import Features


def index(config: IndexConfig, resources: Resources, watch: Watch = silent) -> Summary:
    """Build the index of a feature set, unless it is there.

    Raises NotFound without features, Conflict when an index of this name was made from something else.
    """
    dataset = Dataset.open(config.dataset)
    features = Features(dataset, config.features)
    name = config.name or config.features
    there = _there(dataset, name, features, config)
    since = time.monotonic()
    if there is None:
        built = build(features, kind=config.kind, metric=config.metric, seed=config.seed)
        there = IndexFacts(
            name=name,
            features=features.name,
            made_from=features.fingerprint,
            kind=built.kind,
            metric=config.metric,
            parameters=built.parameters,
            rows=int(built.index.ntotal),
            seconds=round(time.monotonic() - since, 3),
        )
        write_index(dataset, built, features.card, there)
    query = next((m for m in features.card.towers if m == "text"), next(iter(features.card.towers), "key"))
    return Summary(
        stage="index",
        where=dataset.store.where(index_folder(name)),
        shards=len(features.receipts),
        shards_before=0,
        rows_in=there.rows,
        rows_out=there.rows,
        absent=0,
        rejected={},
        repaired={},
        seconds=time.monotonic() - since,
        phases={},
        rows_now=0,
        next=f"mmdata search {config.dataset} --index {name} --{query} ...",
        facts={"kind": there.kind, "metric": there.metric, **there.parameters},
    )


def _there(dataset: Dataset, name: str, features: Features, config: IndexConfig) -> IndexFacts | None:
    """The index that is there, if it is the one that is asked for."""
    if config.overwrite:
        return None
    try:
        found, _, _ = read_facts(dataset, name)
    except NotFound:
        return None
    kind = found.kind if config.kind == "auto" else config.kind
    has = {
        "features": found.features,
        "made_from": found.made_from,
        "kind": found.kind,
        "metric": found.metric,
    }
    asked = {
        "features": features.name,
        "made_from": features.fingerprint,
        "kind": kind,
        "metric": config.metric,
    }
    if has != asked:
        raise conflict(f"the index {name!r}", has, asked, "choose another --name, or --overwrite")
    return found
