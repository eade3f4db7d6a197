"""A head on features, shard by shard: `predictions/HEAD/` holds a Parquet a shard."""

import time
from dataclasses import dataclass, replace
from functools import partial

import torch

from mmdata.cluster import Resources, Task, in_work
from mmdata.config import PredictConfig
from mmdata.crash import point
from mmdata.errors import conflict
from mmdata.fusion.feed import Feed, Plan, Where
from mmdata.fusion.figures import run_tasks
from mmdata.fusion.heads import Head, take_head
from mmdata.fusion.model import FusionModel
from mmdata.fusion.trained import load_model
from mmdata.stages import Job, Summary, Watch, run_job, silent
from mmdata.stages.heads import head_features, head_receipt, read_shard, sample_ids, shard_content
from mmdata.storage.dataset import Dataset, predictions_folder
from mmdata.storage.features import Features
from mmdata.storage.receipts import commit, read_receipts, rejects_file, versions, write_summary
from mmdata.storage.tables import to_parquet
from mmdata.types import Receipt


def predict(config: PredictConfig, resources: Resources, watch: Watch = silent) -> Summary:
    """What the head says of every sample of the dataset: a column a task and `TASK.probability`.

    Raises Conflict when the features are of other encoders than the head's, or predictions of this name were made by
    another head or from other features.
    """
    dataset = Dataset.open(config.dataset)
    head = take_head(dataset, config.head, config.head_from or config.dataset)
    features = head_features(dataset, head, config.features, config.missing)
    folder = predictions_folder(head.name)
    content = shard_content(features)
    if config.overwrite:
        for info in dataset.store.list(folder):
            dataset.store.delete(info.path)
    done = read_receipts(dataset.store, folder)
    for shard, receipt in done.items():
        found, wanted = {"head": receipt.fingerprint} | receipt.inputs, {"head": head.sha256} | content.get(shard, {})
        if found != wanted:
            what = f"shard {shard} of {dataset.store.where(folder)}"
            raise conflict(what, found, wanted, "make it again with --overwrite")
    job = Job(
        stage="predict",
        dataset=dataset.url,
        where=dataset.store.where(folder),
        setup=partial(_setup, dataset, head, features, content),
        work=_predict_shard,
        samples=partial(sample_ids, features),
        todo=[name for name in content if name not in done],
        done=list(done.values()),
        total_rows=max(sum(r.rows_out for r in set_.receipts.values()) for set_ in features.values()),
        next="",
    )
    summary = run_job(job, resources, config.max_reject_rate, watch)
    write_summary(dataset.store, folder, changed=bool(job.todo))
    return summary


@dataclass(frozen=True, slots=True)
class _State:
    dataset: Dataset
    head: Head
    features: dict[str, Features]
    content: dict[str, dict[str, str]]
    model: FusionModel


def _setup(dataset: Dataset, head: Head, features: dict[str, Features], content: dict[str, dict[str, str]]) -> _State:
    point("predict.load_head")
    return _State(dataset, head, features, content, load_model(head))


def _predict_shard(state: _State, task: Task) -> list[Receipt]:
    since = time.perf_counter()
    pack, rejects = read_shard(state.head, state.features, task)
    feed = Feed(pack, {}, Plan(Where.RESIDENT, "one shard"))
    rows = pack.rows.select(["id", "key"])
    with in_work(task.shard, *rows["id"].to_pylist()):
        outputs = run_tasks(state.model, feed, torch.arange(len(pack)))
    if task.only is not None:
        return []
    for name, output in outputs.items():
        for column, values in state.model.task(name).columns(output).items():
            rows = rows.append_column(f"{name}.{column}" if column else name, values)
    point("predict.shard")
    content, counts = state.content[task.shard], (len(pack), len(pack))
    receipt = head_receipt(
        "predict", state.head.sha256, task.shard, content, counts, rejects, time.perf_counter() - since
    )
    receipt = replace(receipt, versions=versions("torch"))
    files = {"parquet": to_parquet(rows.sort_by("id"))} | rejects_file(rejects)
    return [commit(state.dataset.store, predictions_folder(state.head.name), receipt, files)]
