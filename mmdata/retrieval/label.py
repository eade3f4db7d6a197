"""The truth in the label: what an index is, what it keeps in memory, how well it finds, and when that is over."""

import time
from collections import Counter
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

import faiss

from mmdata.crash import point, tear
from mmdata.retrieval.build import Recipe
from mmdata.retrieval.generation import IndexFacts, LocalFiles, describe_files, read_facts
from mmdata.retrieval.kinds import KINDS, Terms
from mmdata.retrieval.living import Made, write_parts
from mmdata.retrieval.measure import Probe, how_many, own_probe, probe, recalls, tune, worst
from mmdata.retrieval.rows import ROWS, write_rows
from mmdata.retrieval.sample import sibling_queries
from mmdata.retrieval.vector_index import INDEX, VectorIndex
from mmdata.storage.dataset import Dataset
from mmdata.storage.store import translated
from mmdata.types import EncoderCard

DRIFT = 0.5  # rows that came and went, over the rows that an index was made for: beyond it a rebuild is due
TUNING, LABEL = 1, 2  # added to the seed, so that recall is measured with other queries than it is tuned with


def finish(recipe: Recipe, name: str, made: Made, terms: Terms, since: float, place: Path) -> IndexFacts:
    """Tune the search, measure the recall and write the files of a generation to `place`; nobody reads it yet."""
    dataset, card = recipe.dataset, recipe.features.card
    tuned = tune(made.index, recipe.kind, probes(dataset, card, made.index, terms.seed + TUNING), terms.min_recall)
    recall = recalls(made.index, probes(dataset, card, made.index, terms.seed + LABEL), tuned.parameters)
    with translated(dataset.store.where(recipe.folder)):
        tear("index.vectors_torn", 1 << 10)
        names = made.index.save(place)
        point("index.vectors_written")
        write_rows(place / ROWS, made.tables)
        files = describe_files(place, [*names, ROWS])
    point("index.files_written")
    write_parts(recipe, made)
    for info in dataset.store.list(f"{recipe.folder}/parts"):
        dataset.store.delete(info.path)
    left_out = sum((Counter(part.left_out) for part in made.parts), Counter[str]())
    gone = sum(part.rows_in for part in made.parts) - made.index.rows - left_out.total()
    facts = IndexFacts(
        name=name,
        features=recipe.features.name,
        kind=recipe.kind,
        metric=recipe.metric,
        parameters=tuned.parameters,
        asked=asdict(terms),
        rows=made.index.rows,
        memory=files[INDEX].bytes,
        recall=recall,
        trained_for=made.trained_for,
        changed=made.changed,
        due=[],
        left_out=dict(left_out) | ({"deleted": gone} if gone else {}),
        seconds=round(time.monotonic() - since, 3),
        files=files,
        versions={"mmdata": version("mmdata"), "faiss": faiss.__version__},
    )
    return replace(facts, due=_due(facts, terms))


def _due(facts: IndexFacts, terms: Terms) -> list[str]:
    """Why an index is not, or no more, what was asked."""
    reasons = {
        f"recall@10 is {worst(facts.recall):g}, below {terms.min_recall:g}": worst(facts.recall) < terms.min_recall,
        f"it takes {facts.memory} bytes, more than {terms.memory}": facts.memory > terms.memory,
        f"{facts.changed} rows came or went since it was made for {facts.trained_for}": (
            bool(KINDS[facts.kind].knob) and facts.changed > DRIFT * facts.trained_for
        ),
    }
    return [reason for reason, holds in reasons.items() if holds]


def probes(dataset: Dataset, card: EncoderCard, index: VectorIndex, seed: int) -> list[Probe]:
    """Queries for the recall: rows of the index, and of every other feature set in its space."""
    wanted = how_many(index.rows, card.dim)
    siblings = sibling_queries(dataset, card, wanted, index.metric, seed)
    own = own_probe(index, card.modality.value, wanted, seed)
    return [own, *(probe(index, modality, queries) for modality, queries in siblings.items())]


def check(dataset: Dataset, name: str, seed: int) -> tuple[IndexFacts, dict[str, dict[str, float]]]:
    """The label, and the recall as it is now, after every file was compared with its hash.

    Raises Damage when one is not what was written.
    """
    facts, card = read_facts(dataset, name)
    index, _ = LocalFiles(dataset, facts, whole=True).open(facts.metric, mapped=True)
    return facts, recalls(index, probes(dataset, card, index, seed + LABEL), facts.parameters)


def brief(recall: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Recall as a summary shows it."""
    return {f"{modality} queries": {f"@{k}": share for k, share in at.items()} for modality, at in recall.items()}
