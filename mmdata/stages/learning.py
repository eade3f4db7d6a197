"""What a training config means: rows, parts, labels, and the architecture of the head."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from torch import Tensor

from mmdata.config import TrainConfig
from mmdata.config.learn import AlignTaskConfig, SplitConfig, TaskConfig
from mmdata.errors import ConfigError
from mmdata.fusion.align import common_space
from mmdata.fusion.labels import add_labels, column, encode, groups, labelled, read_labels, shots
from mmdata.fusion.model import Architecture, TaskFacts
from mmdata.fusion.operators import default_operator
from mmdata.fusion.pack import Pack, Source, cache_folder, make_pack
from mmdata.fusion.splits import Part, Parts, check_apart, split_by_column, split_by_hash
from mmdata.storage.dataset import Dataset
from mmdata.storage.store import translated

OWN = ("type", "weight", "column")  # keys of a task that are not its options


@dataclass(frozen=True, slots=True)
class Lesson:
    """Rows and labels of a training config. `targets` have no label of a part that was not asked for."""

    pack: Pack
    rows: pa.Table  # of the pack, with the labels of tables
    parts: Parts
    facts: dict[str, dict[str, Any]]  # what each task has learned from the labels
    targets: dict[str, Tensor]


def lesson(config: TrainConfig, seen: tuple[Part, ...], known: dict[str, dict[str, Any]] | None = None) -> Lesson:
    """Read features and labels, of the parts in `seen`. `known` are facts that a head has learned before.

    Raises ConfigError for a column that is not there, labels that fit no task, an empty part, and a caption (or
    what else `split.apart` names) on two sides of the split.
    """
    pack = read_pack(config)
    tables = {number: read_labels(one.labels) for number, one in enumerate(config.data) if one.labels}
    rows = add_labels(pack.rows, tables)
    parts = split(rows, config.split)
    columns = {name: (task.type, getattr(task, "column", None)) for name, task in config.tasks.items()}
    facts, targets = encode(rows, columns, parts, seen, known or {})
    parts = parts | {Part.TRAIN: _taught(config, parts[Part.TRAIN], targets)}
    return Lesson(pack, rows, parts, facts, targets)


def _taught(config: TrainConfig, rows: NDArray[np.int64], targets: dict[str, Tensor]) -> NDArray[np.int64]:
    """The training rows that some task has a label for, once those beyond `shots` are taken out of `targets`."""
    for name, count in config.labels_of_a_class.items():
        if config.tasks[name].type != "multiclass":
            raise ConfigError(f"shots counts rows a class, and the task {name!r} is {config.tasks[name].type}")
        kept = shots(targets[name], rows, count, config.train.seed)
        targets[name][np.setdiff1d(rows, kept)] = -1
    return rows[np.any([labelled(target.numpy()[rows]) for target in targets.values()], axis=0)]


def read_pack(config: TrainConfig) -> Pack:
    """The pack of the config's features."""
    sources = [Source(Dataset.open(one.dataset or config.dataset), one.features) for one in config.data]
    with translated(f"the cache {cache_folder()} (MMDATA_CACHE)"):
        return make_pack(sources, cache_folder())


def split(rows: pa.Table, config: SplitConfig) -> Parts:
    """The parts of the rows. ConfigError when one is empty or two share what they must not."""
    if config.column is not None:
        parts = split_by_column(column(rows, config.column).to_pylist(), config.column)
    else:
        shares = {Part.VALIDATION: config.validation, Part.TEST: config.test}
        parts = split_by_hash(groups(rows, config.group), shares, config.seed)
    empty = [part.value for part in (Part.TRAIN, Part.VALIDATION) if not len(parts[part])]
    if empty:
        raise ConfigError(f"the split leaves no row for {' and '.join(empty)}; see split in the config")
    for name in config.apart:
        if name in rows.column_names and rows[name].null_count < len(rows):
            check_apart(parts, name, rows[name])
    return parts


def architecture(config: TrainConfig, one: Lesson) -> Architecture:
    """The head that a config asks for."""
    inputs = {name: int(input_.values.shape[1]) for name, input_ in one.pack.inputs.items()}
    tokens = tuple(name for name, input_ in one.pack.inputs.items() if input_.tokens)
    tasks = {}
    for name, task in config.tasks.items():
        options = {key: value for key, value in task.model_dump(mode="json").items() if key not in OWN}
        _check_inputs(name, options, list(inputs))
        tasks[name] = TaskFacts(task.type, task.weight, options, one.facts[name] | _shared(task, one.pack))
    model = config.model
    fusion = model.fusion or default_operator(len(inputs), bool(tokens))
    return Architecture(inputs, tokens, fusion, model.dim, model.layers, model.dropout, tasks)


def _shared(task: TaskConfig, pack: Pack) -> dict[str, Any]:
    """What an align task is told of the space that its inputs share before; of pooled ones, tokens have no card."""
    if not isinstance(task, AlignTaskConfig):
        return {}
    pooled = {name: pack.inputs[name] for name in task.between if not pack.inputs[name].tokens}
    found = common_space({name: one.card for name, one in pooled.items()})
    return {"shared": {name: list(columns) for name, columns in found.items()}} if found else {}


def _check_inputs(name: str, options: dict[str, Any], inputs: list[str]) -> None:
    unknown = [one for one in (*options.get("between", ()), *options.get("alpha", {})) if one not in inputs]
    if unknown:
        raise ConfigError(f"tasks.{name} names {', '.join(unknown)}; the inputs are {', '.join(inputs)}")


def label_counts(config: TrainConfig, one: Lesson) -> dict[str, dict[str, int]]:
    """Labelled rows of each task by part; of test nothing is known while a head trains."""
    found = {}
    for name, task in config.tasks.items():
        if getattr(task, "column", None) is None or task.type in ("align", "match"):
            continue
        has = labelled(one.targets[name].numpy())
        found[name] = {part.value: int(has[one.parts[part]].sum()) for part in (Part.TRAIN, Part.VALIDATION)}
    return found
