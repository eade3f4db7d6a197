"""A head's output as a feature set: the last arrow of the flow, back to features."""

import time
from dataclasses import dataclass
from functools import partial

import numpy as np

from mmdata.cluster import Resources
from mmdata.fusion.align import Tower
from mmdata.fusion.heads import Head
from mmdata.stages import Job, Summary, Watch, run_job
from mmdata.storage.dataset import Dataset, features_folder
from mmdata.storage.features import Features, claim, features_file, finished, same_rows, vectors
from mmdata.storage.receipts import commit, versions, write_summary
from mmdata.types import EncoderCard, Receipt


def project(dataset: Dataset, head: Head, features: Features, overwrite: bool, watch: Watch) -> Summary:
    """Project every shard of `features` that is not projected yet to `features/HEAD.MODALITY`."""
    card = head.card(features.card.modality)
    claim(dataset, card, overwrite)
    done = finished(dataset, card, {name: receipt.content for name, receipt in features.receipts.items()})
    job = Job(
        stage="project",
        where=dataset.store.where(features_folder(card.name)),
        setup=partial(_State, features, head.towers[features.card.modality], card),
        work=_project_shard,
        todo=[name for name in features.receipts if name not in done],
        done=list(done.values()),
        total_rows=sum(receipt.rows_out for receipt in features.receipts.values()),
        next="",
    )
    summary = run_job(job, Resources(workers=0), 0.0, watch)
    write_summary(dataset.store, features_folder(card.name), changed=bool(job.todo))
    return summary


@dataclass(frozen=True, slots=True)
class _State:
    features: Features
    tower: Tower
    card: EncoderCard


def _project_shard(state: _State, name: str) -> list[Receipt]:
    since = time.perf_counter()
    made_of = state.features.receipts[name]
    table = state.features.read(made_of)
    projected = state.tower.project(vectors(table).astype(np.float64))
    data = features_file(state.card, table.drop_columns(["embedding"]), projected)
    receipt = Receipt(
        stage="project",
        shard=name,
        fingerprint=state.card.fingerprint,
        inputs=made_of.content,
        outputs={},
        rows_in=table.num_rows,
        rows_out=table.num_rows,
        absent=made_of.absent,
        rejected={},
        repaired={},
        seconds={"project": time.perf_counter() - since},
        versions=versions("numpy", "scipy"),
    )
    folder = features_folder(state.card.name)
    return [
        commit(
            state.features.dataset.store,
            folder,
            receipt,
            {"parquet": data},
            adopt=lambda suffix, found: same_rows(state.card, found, data),
        )
    ]
