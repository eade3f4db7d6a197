"""The verbs that make things: shard, extract, align, index."""

from collections.abc import Callable
from typing import Annotated, Any

import typer

Config = Annotated[str | None, typer.Option("--config", help="YAML file with the keys of this verb")]
Sets = Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE over the file; may be repeated")]
AsJson = Annotated[bool, typer.Option("--json", help="the result as one JSON document")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="say what would be done, and do nothing")]
Overwrite = Annotated[bool | None, typer.Option("--overwrite", help="make again what was made from something else")]
Workers = Annotated[int | None, typer.Option(help="Ray workers; 0 is this process without Ray")]
Cpus = Annotated[float | None, typer.Option(help="CPUs of one worker")]
Gpus = Annotated[float | None, typer.Option(help="GPUs of one worker")]
Address = Annotated[str | None, typer.Option(help="of a running Ray cluster; default: RAY_ADDRESS")]
SampleTimeout = Annotated[float | None, typer.Option(help="seconds that a sample, or a batch, may take (600)")]
ShardTimeout = Annotated[float | None, typer.Option(help="seconds that a shard may take; default: no limit")]
WaitForNodes = Annotated[float | None, typer.Option(help="seconds that an autoscaler has for a first node (0)")]
RejectRate = Annotated[float | None, typer.Option(help="above it the run ends with exit code 3 (0.05)")]
DatasetArg = Annotated[str | None, typer.Argument(help="folder or URL of the dataset")]


def _job(stage: Callable[..., Any], config: Any, as_json: bool, dry_run: bool) -> None:
    """Run a stage and show its summary; with `dry_run` show its config only."""
    from mmdata import console

    if dry_run:
        console.emit_json(config.model_dump(mode="json"))
        return
    from mmdata.stages import resources_of

    console.show_summary(stage(config, resources_of(config), console.Progress()), as_json)


def shard(
    source: Annotated[str | None, typer.Argument(help="folder, table or tars, local or a URL")] = None,
    dataset: DatasetArg = None,
    samples_per_shard: Annotated[int | None, typer.Option(help="samples of a shard at most (1000)")] = None,
    shard_size: Annotated[str | None, typer.Option(help="bytes of a shard at most, as 256MB")] = None,
    shuffle: Annotated[int | None, typer.Option(help="seed; default: the order of the source")] = None,
    modalities: Annotated[str | None, typer.Option(help="which to take, as image,text")] = None,
    require: Annotated[str | None, typer.Option(help="which a sample must have, as image,text")] = None,
    validate: Annotated[bool | None, typer.Option("--validate/--no-validate", help="decode every part once")] = None,
    dedup: Annotated[str | None, typer.Option(help="none, or exact: leave out samples with equal bytes")] = None,
    salvage: Annotated[bool | None, typer.Option("--salvage", help="take what is whole of damaged tars")] = None,
    outside: Annotated[bool | None, typer.Option("--outside", help="a table's paths may leave its folder")] = None,
    key_column: Annotated[str | None, typer.Option(help="of a table")] = None,
    image_column: Annotated[str | None, typer.Option(help="of a table: paths, bytes or {bytes, path}")] = None,
    audio_column: Annotated[str | None, typer.Option(help="of a table: paths, bytes or {bytes, path}")] = None,
    text_column: Annotated[str | None, typer.Option(help="of a table: the texts themselves")] = None,
    workers: Workers = None,
    cpus_per_worker: Cpus = None,
    ray_address: Address = None,
    sample_timeout: SampleTimeout = None,
    shard_timeout: ShardTimeout = None,
    wait_for_nodes: WaitForNodes = None,
    max_reject_rate: RejectRate = None,
    overwrite: Overwrite = None,
    config: Config = None,
    set_: Sets = None,
    as_json: AsJson = False,
    dry_run: DryRun = False,
) -> None:
    """Raw corpus to WebDataset shards.

    Files of a folder with the same stem are one sample:

        mmdata shard photos/ data/
        mmdata shard captions.jsonl data/ --require image,text --shuffle 7
        mmdata shard 's3://bucket/train-*.tar' s3://bucket/data --workers 8
        mmdata shard 'old/shards/*.tar' data/ --salvage
    """
    from mmdata.config import ShardConfig, load
    from mmdata.stages.shard import shard as stage

    columns = {"key": key_column, "image": image_column, "audio": audio_column, "text": text_column}
    flags = {
        "source": source,
        "dataset": dataset,
        "samples_per_shard": samples_per_shard,
        "shard_size": shard_size,
        "shuffle": shuffle,
        "modalities": _list(modalities),
        "require": _list(require),
        "validate_media": validate,
        "dedup": dedup,
        "salvage": salvage,
        "outside": outside,
        "columns": {role: name for role, name in columns.items() if name} or None,
        "workers": workers,
        "cpus_per_worker": cpus_per_worker,
        "ray_address": ray_address,
        "sample_timeout": sample_timeout,
        "shard_timeout": shard_timeout,
        "wait_for_nodes": wait_for_nodes,
        "max_reject_rate": max_reject_rate,
        "overwrite": overwrite,
    }
    _job(stage, load(ShardConfig, config, set_ or (), flags), as_json, dry_run)


def extract(
    dataset: DatasetArg = None,
    encoder: Annotated[list[str] | None, typer.Option(help="[NAME=]SPEC; may be repeated")] = None,
    batch_size: Annotated[int | None, typer.Option(help="default: a good one for the device")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, fp32, bf16 or fp16")] = None,
    dtype: Annotated[str | None, typer.Option(help="of the stored vectors: float16 or float32")] = None,
    windows: Annotated[str | None, typer.Option(help="of long texts and sounds: mean, rows or cut")] = None,
    window_seconds: Annotated[float | None, typer.Option(help="of sound; default: the encoder's own")] = None,
    min_side: Annotated[int | None, typer.Option(help="JPEGs may be decoded smaller, to this side (exact)")] = None,
    background: Annotated[str | None, typer.Option(help="below transparent pixels (#ffffff)")] = None,
    tokens: Annotated[int | None, typer.Option(help="also keep at most so many token vectors a row")] = None,
    workers: Workers = None,
    cpus_per_worker: Cpus = None,
    gpus_per_worker: Gpus = None,
    ray_address: Address = None,
    sample_timeout: SampleTimeout = None,
    shard_timeout: ShardTimeout = None,
    wait_for_nodes: WaitForNodes = None,
    max_reject_rate: RejectRate = None,
    overwrite: Overwrite = None,
    config: Config = None,
    set_: Sets = None,
    as_json: AsJson = False,
    dry_run: DryRun = False,
) -> None:
    """Run frozen encoders over the shards and keep their vectors as Parquet.

    Several encoders in one run read and decode each sample once; --dry-run says what each would make:

        mmdata extract data/ --encoder minilm --encoder efficientnet-lite0
        mmdata extract data/ --encoder clip=hf:openai/clip-vit-base-patch32#image
        mmdata extract data/ --encoder torchvision:resnet50 --workers 4 --gpus-per-worker 1
        mmdata extract data/ --encoder mel-stats --windows rows --window-seconds 10
    """
    from mmdata import console
    from mmdata.config import ExtractConfig, load
    from mmdata.stages import resources_of
    from mmdata.stages.extract import describe_extraction
    from mmdata.stages.extract import extract as stage

    flags = {
        "dataset": dataset,
        "encoders": encoder or None,
        "batch_size": batch_size,
        "precision": precision,
        "dtype": dtype,
        "windows": windows,
        "window_seconds": window_seconds,
        "min_side": min_side,
        "background": background,
        "tokens": tokens,
        "workers": workers,
        "cpus_per_worker": cpus_per_worker,
        "gpus_per_worker": gpus_per_worker,
        "ray_address": ray_address,
        "sample_timeout": sample_timeout,
        "shard_timeout": shard_timeout,
        "wait_for_nodes": wait_for_nodes,
        "max_reject_rate": max_reject_rate,
        "overwrite": overwrite,
    }
    loaded = load(ExtractConfig, config, set_ or (), flags)
    if dry_run:
        facts = describe_extraction(loaded, resources_of(loaded))
        console.emit_json(facts) if as_json else console.show_facts(facts)
        return
    _job(stage, loaded, as_json, dry_run)


def align(
    dataset: DatasetArg = None,
    features: Annotated[tuple[str, str] | None, typer.Option(help="two feature sets, as: --features A B")] = None,
    name: Annotated[str | None, typer.Option(help="of the head; its features are NAME.image and so on")] = None,
    dim: Annotated[int | None, typer.Option(help="of the common space (128)")] = None,
    holdout: Annotated[float | None, typer.Option(help="share of the captions kept for the report (0.2)")] = None,
    seed: Annotated[int | None, typer.Option()] = None,
    overwrite: Overwrite = None,
    config: Config = None,
    set_: Sets = None,
    as_json: AsJson = False,
    dry_run: DryRun = False,
) -> None:
    """Bring two feature sets of the same samples into one space.

    Regularised CCA in closed form; afterwards a text finds pictures, or sounds:

        mmdata align data/ --features minilm efficientnet-lite0 --name pictures
        mmdata index data/ --features pictures.image
        mmdata search data/ --index pictures.image --text "a bird that can swim"
    """
    from mmdata.config import AlignConfig, load
    from mmdata.stages.align import align as stage

    flags = {
        "dataset": dataset,
        "features": features,
        "name": name,
        "dim": dim,
        "holdout": holdout,
        "seed": seed,
        "overwrite": overwrite,
    }
    _job(stage, load(AlignConfig, config, set_ or (), flags), as_json, dry_run)


def index(
    dataset: DatasetArg = None,
    features: Annotated[str | None, typer.Option(help="a feature set")] = None,
    name: Annotated[str | None, typer.Option(help="of the index; default: that of the features")] = None,
    kind: Annotated[str | None, typer.Option(help="auto, flat, hnsw, ivf-flat or ivf-pq")] = None,
    metric: Annotated[str | None, typer.Option(help="cosine, ip or l2")] = None,
    min_recall: Annotated[float | None, typer.Option(help="share of the 10 nearest that is found (0.95)")] = None,
    memory: Annotated[str | None, typer.Option(help="what a search may keep in memory (4GB)")] = None,
    delete: Annotated[list[str] | None, typer.Option(help="a key to take out for good; may be repeated")] = None,
    check: Annotated[bool | None, typer.Option("--check", help="prove the files and measure the recall again")] = None,
    seed: Annotated[int | None, typer.Option()] = None,
    workers: Workers = None,
    cpus_per_worker: Cpus = None,
    ray_address: Address = None,
    wait_for_nodes: WaitForNodes = None,
    max_reject_rate: RejectRate = None,
    overwrite: Overwrite = None,
    config: Config = None,
    set_: Sets = None,
    as_json: AsJson = False,
    dry_run: DryRun = False,
) -> None:
    """Build the FAISS index of a feature set, or bring the one that is there up to date.

    `auto` takes the fastest kind that has the recall in the memory. The same command adds new shards:

        mmdata index data/ --features minilm
        mmdata index data/ --features efficientnet-lite0 --kind ivf-flat --name pictures-ivf
        mmdata index data/ --features clip --memory 2GB --min-recall 0.98 --workers 8
        mmdata index data/ --features minilm --delete star/00001
        mmdata index data/ --features minilm --check
    """
    from mmdata.config import IndexConfig, load
    from mmdata.stages.index import index as stage

    flags = {
        "dataset": dataset,
        "features": features,
        "name": name,
        "kind": kind,
        "metric": metric,
        "min_recall": min_recall,
        "memory": memory,
        "delete": delete or None,
        "check": check,
        "seed": seed,
        "workers": workers,
        "cpus_per_worker": cpus_per_worker,
        "ray_address": ray_address,
        "wait_for_nodes": wait_for_nodes,
        "max_reject_rate": max_reject_rate,
        "overwrite": overwrite,
    }
    _job(stage, load(IndexConfig, config, set_ or (), flags), as_json, dry_run)


def _list(value: str | None) -> list[str] | None:
    return None if value is None else [item.strip() for item in value.split(",")]
