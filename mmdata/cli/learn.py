"""The verbs that learn: train, evaluate, predict, project, probe, sweep."""

from typing import Annotated, Any

import typer

from mmdata.cli.build import (
    Address,
    AsJson,
    Config,
    Cpus,
    DatasetArg,
    DryRun,
    Gpus,
    Overwrite,
    RejectRate,
    SampleTimeout,
    Sets,
    ShardTimeout,
    Workers,
    _job,
)

Head = Annotated[str | None, typer.Option(help="the name of a head")]
HeadFrom = Annotated[str | None, typer.Option(help="a dataset to copy the head from, unless it is here")]
FeaturesOf = Annotated[list[str] | None, typer.Option("--features", help="INPUT=FEATURES; may be repeated")]


def train(
    config: Annotated[str, typer.Argument(help="YAML file; see configs/")],
    workers: Annotated[int | None, typer.Option(help="processes that share every batch, on Ray Train (1)")] = None,
    gpus_per_worker: Gpus = None,
    ray_address: Address = None,
    overwrite: Overwrite = None,
    set_: Sets = None,
    as_json: AsJson = False,
    dry_run: DryRun = False,
) -> None:
    """Train a light head on cached features.

    The same command goes on where a killed run was; --dry-run says what would be trained on:

        mmdata train configs/stamps/category.yaml --dry-run
        mmdata train configs/stamps/category.yaml --set train.epochs=20 --set train.seed=1
    """
    from mmdata import console
    from mmdata.config import TrainConfig, load
    from mmdata.stages.train import describe_training, train_head

    place = {"workers": workers, "gpus_per_worker": gpus_per_worker, "ray_address": ray_address}
    loaded = load(TrainConfig, config, set_ or (), place | {"overwrite": overwrite})
    if dry_run:
        _show(describe_training(loaded), as_json)
        return
    console.show_summary(train_head(loaded, console.show_epoch), as_json)


def evaluate(
    dataset: DatasetArg = None,
    head: Head = None,
    part: Annotated[str | None, typer.Option(help="train, validation or test (test)")] = None,
    missing: Annotated[str | None, typer.Option(help="inputs to leave out, as image,text; or each")] = None,
    baselines: Annotated[bool | None, typer.Option("--baselines/--no-baselines")] = None,
    config: Config = None,
    set_: Sets = None,
    as_json: AsJson = False,
) -> None:
    """Judge a head on rows that it has not seen, beside the simplest predictors.

    mmdata evaluate data/ --head category
    mmdata evaluate data/ --head category --missing each --json
    """
    from dataclasses import asdict

    from mmdata import console
    from mmdata.config import EvaluateConfig, load
    from mmdata.stages.evaluate import evaluate as stage

    flags = {
        "dataset": dataset,
        "head": head,
        "part": part,
        "missing": missing.split(",") if missing else None,
        "baselines": baselines,
    }
    result = stage(load(EvaluateConfig, config, set_ or (), flags))
    if as_json:
        console.emit_json(asdict(result))
        return
    console.show_evaluation(result)


def predict(
    dataset: DatasetArg = None,
    head: Head = None,
    head_from: HeadFrom = None,
    features: FeaturesOf = None,
    missing: Annotated[str | None, typer.Option(help="inputs that the samples have not, as image,text")] = None,
    workers: Workers = None,
    cpus_per_worker: Cpus = None,
    ray_address: Address = None,
    sample_timeout: SampleTimeout = None,
    shard_timeout: ShardTimeout = None,
    max_reject_rate: RejectRate = None,
    overwrite: Overwrite = None,
    config: Config = None,
    set_: Sets = None,
    as_json: AsJson = False,
    dry_run: DryRun = False,
) -> None:
    """What a head says of every sample: predictions/HEAD/, a Parquet a shard.

    mmdata predict data/ --head category
    mmdata predict new/ --head category --head-from data/ --workers 8
    mmdata predict pictures/ --head category --head-from data/ --missing text
    """
    from mmdata.config import PredictConfig, load
    from mmdata.stages.predict import predict as stage

    flags = _over_shards(dataset, head, features, workers, cpus_per_worker, ray_address, overwrite)
    flags |= {
        "head_from": head_from,
        "missing": missing.split(",") if missing else None,
        "sample_timeout": sample_timeout,
        "shard_timeout": shard_timeout,
        "max_reject_rate": max_reject_rate,
    }
    _job(stage, load(PredictConfig, config, set_ or (), flags), as_json, dry_run)


def project(
    dataset: DatasetArg = None,
    head: Head = None,
    head_from: HeadFrom = None,
    features: FeaturesOf = None,
    workers: Workers = None,
    cpus_per_worker: Cpus = None,
    ray_address: Address = None,
    sample_timeout: SampleTimeout = None,
    shard_timeout: ShardTimeout = None,
    max_reject_rate: RejectRate = None,
    overwrite: Overwrite = None,
    config: Config = None,
    set_: Sets = None,
    as_json: AsJson = False,
    dry_run: DryRun = False,
) -> None:
    """A head's output as features, which can be indexed and searched like any others.

    mmdata project data/ --head common
    mmdata index data/ --features common.image
    """
    from mmdata.config import ProjectConfig, load
    from mmdata.stages.project import project as stage

    flags = _over_shards(dataset, head, features, workers, cpus_per_worker, ray_address, overwrite)
    flags |= {
        "head_from": head_from,
        "sample_timeout": sample_timeout,
        "shard_timeout": shard_timeout,
        "max_reject_rate": max_reject_rate,
    }
    _job(stage, load(ProjectConfig, config, set_ or (), flags), as_json, dry_run)


def probe(
    dataset: DatasetArg = None,
    features: Annotated[list[str] | None, typer.Option(help="a feature set; may be repeated: side by side")] = None,
    column: Annotated[str | None, typer.Option(help="of the metadata, or of --labels: the class")] = None,
    labels: Annotated[str | None, typer.Option(help="a table with a column key")] = None,
    shots: Annotated[int | None, typer.Option(help="training rows a class; default: all")] = None,
    seeds: Annotated[int | None, typer.Option(help="draws of the shots (1)")] = None,
    config: Config = None,
    set_: Sets = None,
    as_json: AsJson = False,
) -> None:
    """What a logistic regression reads from frozen features.

    mmdata probe data/ --features efficientnet-lite0 --column colour
    mmdata probe data/ --features minilm --features mel-stats --column colour --shots 5 --seeds 3
    """
    from dataclasses import asdict

    from mmdata.config import ProbeConfig, load
    from mmdata.stages.probe import probe as stage

    flags = {
        "dataset": dataset,
        "features": features or None,
        "column": column,
        "labels": labels,
        "shots": shots,
        "seeds": seeds,
    }
    _show(asdict(stage(load(ProbeConfig, config, set_ or (), flags))), as_json)


def sweep(
    config: Annotated[str, typer.Argument(help="YAML file: dataset, name, train, over, seeds")],
    workers: Workers = None,
    cpus_per_worker: Cpus = None,
    ray_address: Address = None,
    set_: Sets = None,
    as_json: AsJson = False,
) -> None:
    """Train one config with many settings and seeds, and print one table.

    mmdata sweep configs/demo/sweep.yaml --workers 4
    """
    from dataclasses import asdict

    from mmdata import console
    from mmdata.config import SweepConfig, load
    from mmdata.stages import resources_of
    from mmdata.stages.sweep import sweep as stage

    flags = {"workers": workers, "cpus_per_worker": cpus_per_worker, "ray_address": ray_address}
    loaded = load(SweepConfig, config, set_ or (), flags)
    table = stage(loaded, resources_of(loaded))
    if as_json:
        console.emit_json([asdict(one) for one in table])
        return
    rows = [
        [one.figure, one.setting, f"{one.mean:.4f}", _range(one.interval), *_lead(one.lead, one.lead_interval)]
        for one in table
    ]
    title = f"{loaded.name}: {loaded.part}, {loaded.seeds} seeds"
    console.show_table(title, ["figure", "setting", "mean", "95%", "lead over the first", "95%"], rows)


def _range(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"{interval[0]:.4f} to {interval[1]:.4f}"


def _lead(lead: float | None, interval: tuple[float, float] | None) -> list[str]:
    if lead is None:
        return ["", ""]
    return [f"{lead:+.4f}", f"{interval[0]:+.4f} to {interval[1]:+.4f}" if interval else ""]


def _over_shards(
    dataset: str | None,
    head: str | None,
    features: list[str] | None,
    workers: int | None,
    cpus: float | None,
    address: str | None,
    overwrite: bool | None,
) -> dict[str, Any]:
    return {
        "dataset": dataset,
        "head": head,
        "features": dict(one.partition("=")[::2] for one in features) if features else None,
        "workers": workers,
        "cpus_per_worker": cpus,
        "ray_address": address,
        "overwrite": overwrite,
    }


def _show(facts: dict[str, Any], as_json: bool) -> None:
    from mmdata import console

    if as_json:
        console.emit_json(facts)
        return
    console.show_facts(facts)
