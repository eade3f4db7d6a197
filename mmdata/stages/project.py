"""A head's output as a feature set: the last arrow of the flow, back to features."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmdata.cluster import Resources, Task, in_work
from mmdata.config import ProjectConfig
from mmdata.crash import point
from mmdata.fusion.heads import FUSED, Head, take_head
from mmdata.fusion.pack import Pack
from mmdata.stages import Job, Summary, Watch, run_job, silent
from mmdata.stages.heads import head_features, head_receipt, read_shard, sample_ids, shard_content
from mmdata.storage.dataset import Dataset, features_folder
from mmdata.storage.features import Features, claim, features_file, finished, same_rows
from mmdata.storage.receipts import commit, rejects_file, versions, write_summary
from mmdata.types import EncoderCard, Receipt


def project(config: ProjectConfig, resources: Resources, watch: Watch = silent) -> Summary:
    """Every output of a head as a feature set, HEAD.INPUT or HEAD.fused, shard by shard.

    Raises NotFound without the head or its features, Conflict when the features are of another encoder.
    """
    dataset = Dataset.open(config.dataset)
    head = take_head(dataset, config.head, config.head_from or config.dataset)
    features = head_features(dataset, head, config.features)
    return project_head(dataset, head, features, config.overwrite, resources, watch, config.max_reject_rate)


def project_head(
    dataset: Dataset,
    head: Head,
    features: Mapping[str, Features],
    overwrite: bool,
    resources: Resources,
    watch: Watch,
    max_reject_rate: float = 0.0,
) -> Summary:
    """Project what is not projected yet; one summary of all outputs."""
    done = [
        _project_output(dataset, head, output, features, overwrite, resources, watch, max_reject_rate)
        for output in head.outputs
    ]
    names = [head.card(output).name for output in head.outputs]
    return replace(
        done[0],
        rows_in=sum(one.rows_in for one in done),
        rows_out=sum(one.rows_out for one in done),
        rows_now=sum(one.rows_now for one in done),
        seconds=sum(one.seconds for one in done),
        where=", ".join(one.where for one in done),
        next=f"mmdata index {dataset.url} --features {names[0]}",
        facts={"features": names},
    )


def _project_output(
    dataset: Dataset,
    head: Head,
    output: str,
    features: Mapping[str, Features],
    overwrite: bool,
    resources: Resources,
    watch: Watch,
    max_reject_rate: float,
) -> Summary:
    card = head.card(output)
    made_of = features if output == FUSED else {output: features[output]}
    claim(dataset, card, overwrite)
    content = shard_content(made_of)
    done = finished(dataset, card, content)
    folder = features_folder(card.name)
    job = Job(
        stage="project",
        dataset=dataset.url,
        where=dataset.store.where(folder),
        setup=partial(_setup, dataset, head, output, dict(made_of), card, content),
        work=_project_shard,
        samples=partial(sample_ids, made_of),
        todo=[name for name in content if name not in done],
        done=list(done.values()),
        total_rows=sum(receipt.rows_out for set_ in made_of.values() for receipt in set_.receipts.values()),
        next="",
    )
    summary = run_job(job, resources, max_reject_rate, watch)
    write_summary(dataset.store, folder, changed=bool(job.todo))
    return summary


@dataclass(frozen=True, slots=True)
class _State:
    dataset: Dataset
    head: Head
    output: str
    features: dict[str, Features]
    card: EncoderCard
    content: dict[str, dict[str, str]]
    run: Callable[[Pack], dict[str, NDArray[np.floating]]]


def _setup(
    dataset: Dataset,
    head: Head,
    output: str,
    features: dict[str, Features],
    card: EncoderCard,
    content: dict[str, dict[str, str]],
) -> _State:
    point("project.load_head")
    return _State(dataset, head, output, features, card, content, head.projector())


def _project_shard(state: _State, task: Task) -> list[Receipt]:
    since = time.perf_counter()
    pack, rejects = read_shard(state.head, state.features, task)
    with in_work(task.shard, *pack.rows["id"].to_pylist()):
        found = state.run(pack)[state.output]
    if task.only is not None:
        return []
    there = np.isfinite(found).all(1)
    rows = pack.rows.filter(pa.array(there)).sort_by("id")
    point("project.shard")
    order = np.argsort(np.array(pack.rows["id"])[there], kind="stable")
    data = features_file(state.card, rows, found[there][order])
    receipt = head_receipt(
        "project",
        state.card.fingerprint,
        task.shard,
        state.content[task.shard],
        (len(pack), len(rows)),
        rejects,
        time.perf_counter() - since,
    )
    return [
        commit(
            state.dataset.store,
            features_folder(state.card.name),
            replace(receipt, versions=versions("numpy", "torch")),
            {"parquet": data} | rejects_file(rejects),
            adopt=lambda suffix, found: same_rows(state.card, found, data),
        )
    ]
