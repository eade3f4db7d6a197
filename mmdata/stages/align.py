"""Two feature sets of the same samples -> a head that takes both to one space, and its two projected sets."""

import time
from dataclasses import replace
from shlex import quote
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdata.cluster import Resources
from mmdata.config import AlignConfig
from mmdata.crash import point
from mmdata.errors import ConfigError
from mmdata.fusion.align import common_columns, fit_cca, tensors_of
from mmdata.fusion.evaluate import chance_at, recall_at
from mmdata.fusion.heads import Head, find_head, read_metrics, write_head
from mmdata.fusion.splits import hash_share
from mmdata.stages import Summary, Watch, silent
from mmdata.stages.project import project_head
from mmdata.storage.dataset import Dataset, head_folder
from mmdata.storage.features import Features, vectors
from mmdata.types import Modality

MAX_PAIRS = 100_000  # more do not help a linear map, and both sides are held in memory
FOLDS = 4  # of the cross-validation on the training captions that chooses the ridges
LEAST_PAIRS = 20
METHOD = 2  # raised whenever the same features would give another head


def align(config: AlignConfig, resources: Resources, watch: Watch = silent) -> Summary:
    """Fit and write the head, unless it is there, and project what is not projected yet.

    Raises ConfigError for two sets of one modality or too few pairs, Conflict when a head of this name was
    made from something else.
    """
    since = time.monotonic()
    dataset = Dataset.open(config.dataset)
    left, right = (Features(dataset, name) for name in config.features)
    if left.card.modality is right.card.modality:
        raise ConfigError(f"{left.name} and {right.name} are both {left.card.modality}; align two modalities")
    head = _head(dataset, config, left, right)
    fitted = time.monotonic()
    features = {side.card.modality.value: side for side in (left, right)}
    summary = project_head(dataset, head, features, config.overwrite, resources, watch)
    return replace(
        summary,
        stage="align",
        where=dataset.store.where(head_folder(config.name)),
        rows_now=0,
        seconds=time.monotonic() - since,
        phases={"fit": round(fitted - since, 2), "project": round(time.monotonic() - fitted, 2)},
        next=f"mmdata index {quote(config.dataset)} --features {summary.facts['features'][-1]}",
        facts=read_metrics(dataset, config.name) | summary.facts,
    )


def _head(dataset: Dataset, config: AlignConfig, left: Features, right: Features) -> Head:
    options = config.model_dump(mode="json", include={"dim", "holdout", "seed"})
    made_from = options | {"method": METHOD} | {side.name: side.fingerprint for side in (left, right)}
    found = None if config.overwrite else find_head(dataset, config.name, made_from)
    if found is not None:
        return found
    x, y, groups = _pairs(left, right)
    held = _chosen(groups, config.holdout, f"{config.seed}:holdout")
    sides = {name: len(set(np.array(groups)[side])) for name, side in (("fit", ~held), ("held out", held))}
    if min(sides.values()) < LEAST_PAIRS:
        raise ConfigError(
            f"{left.name} and {right.name} share {len(set(groups))} captions: {sides['fit']} to fit by and "
            f"{sides['held out']} held out, where {LEAST_PAIRS} of each are needed; add samples, or hold another share "
            f"out with --set holdout=0.4 (now {config.holdout:g})"
        )
    train = [group for group, is_held in zip(groups, held, strict=True) if not is_held]
    folds = np.array([int(FOLDS * hash_share(f"{config.seed}:fold:{group}")) for group in train])
    shared = common_columns(left.card, right.card)
    fit = fit_cca(x[~held], y[~held], train, folds, config.dim, shared=shared)
    modalities = left.card.modality, right.card.modality
    projected = fit.left.project(x[held]), fit.right.project(y[held])
    metrics = _report(modalities, projected, [g for g, is_held in zip(groups, held, strict=True) if is_held])
    facts = {
        "pairs": len(groups),
        "trained on": len(train),
        "held out": int(held.sum()),
        "ridges": fit.ridges,
        **({"share of what they had in common": fit.share} if shared else {}),
    }
    point("align.fitted")
    head = Head(
        name=config.name,
        sha256="",
        kind="cca",
        inputs={side.card.modality.value: side.card for side in (left, right)},
        outputs={modality.value: fit.left.dim for modality in modalities},
        made_from=made_from,
        model={},
        tensors=tensors_of(dict(zip(modalities, (fit.left, fit.right), strict=True))),
    )
    return write_head(dataset, head, facts | metrics)


def _pairs(left: Features, right: Features) -> tuple[NDArray[Any], NDArray[Any], list[str]]:
    """Features of the samples that both sets have, joined by key, and the caption (else the key) of each."""
    x, y = (side.to_arrow(["key", "caption", "embedding"]) for side in (left, right))
    place = {key: row for row, key in enumerate(y["key"].to_pylist())}
    captions = x["caption"].to_pylist()
    both = [(row, place[key], captions[row] or key) for row, key in enumerate(x["key"].to_pylist()) if key in place]
    both = sorted(both, key=lambda pair: hash_share(f"pair:{pair[2]}"))[:MAX_PAIRS]
    rows, others = ([pair[side] for pair in both] for side in (0, 1))
    return vectors(x)[rows].astype(np.float32), vectors(y)[others].astype(np.float32), [p[2] for p in both]


def _chosen(groups: list[str], share: float, salt: str) -> NDArray[np.bool_]:
    """About `share` of the groups, by hash: equal captions always fall on the same side."""
    return np.array([hash_share(f"{salt}:{group}") < share for group in groups])


def _report(
    modalities: tuple[Modality, Modality], sides: tuple[NDArray[Any], NDArray[Any]], groups: list[str]
) -> dict[str, Any]:
    a, b = modalities
    return {
        f"{a} to {b}": recall_at(sides[0], sides[1], groups),
        f"{b} to {a}": recall_at(sides[1], sides[0], groups),
        "chance": chance_at(groups),
    }
