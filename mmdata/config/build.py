"""The stages that build: shard, extract, align, index."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from mmdata.config.model import Job, Model, Name, Run, Size
from mmdata.types import Modality


class ShardConfig(Job):
    """Raw corpus -> WebDataset shards."""

    source: str = Field(description="a folder, a table (csv, tsv, jsonl, parquet) or tars, local or a URL")
    kind: Literal["folder", "table", "webdataset"] | None = Field(None, description="default: by the name")
    columns: dict[Literal["key", "image", "audio", "text"], str] = Field(default_factory=dict)
    samples_per_shard: int = Field(1000, gt=0)
    shard_size: Size = Field(256_000_000, description="bytes of raw parts at most")
    shuffle: int | None = Field(None, ge=0, description="seed; default: the order of the source")
    modalities: tuple[Modality, ...] = Field(tuple(Modality), min_length=1, description="which to take")
    require: tuple[Modality, ...] = Field((), description="a sample without one of these is a reject")
    validate_media: bool = Field(True, description="decode every part once")
    dedup: Literal["none", "exact"] = "none"
    salvage: bool = Field(False, description="take what is whole of damaged tars, and count the rest")
    outside: bool = Field(False, description="the paths of a table may lead outside of its folder")

    @model_validator(mode="after")
    def _can_have_what_it_requires(self) -> "ShardConfig":
        missing = [modality for modality in self.require if modality not in self.modalities]
        if missing:
            raise ValueError(f"require has {', '.join(missing)}, which modalities leaves out")
        return self

    def absolute_source(self) -> str:
        """The source as workers elsewhere find it."""
        return self.source if "://" in self.source else str(Path(self.source).resolve())

    def plan_options(self) -> dict[str, Any]:
        """What decides the content of the shards, as JSON types."""
        names = ("columns", "samples_per_shard", "shard_size", "shuffle", "modalities", "require", "dedup", "salvage")
        return {name: self.model_dump(mode="json")[name] for name in (*names, "outside", "validate_media")}


class ExtractConfig(Job):
    """Shards -> features."""

    encoders: tuple[str, ...] = Field(min_length=1, description="[NAME=]SPEC of each encoder")
    batch_size: int | None = Field(None, gt=0, description="default: a good one for the device")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    dtype: Literal["float16", "float32"] = Field("float16", description="of the stored vectors")
    windows: Literal["mean", "rows", "cut"] = Field("mean", description="of texts and sounds longer than the model")
    window_seconds: float | None = Field(None, ge=0.1, description="of sound; default: what the encoder was made for")
    min_side: int = Field(0, ge=0, description="JPEGs may be decoded smaller, down to this; 0: exactly")
    background: str = Field("#ffffff", pattern="^#[0-9a-f]{6}$", description="below transparent pixels")
    tokens: int = Field(0, ge=0, description="also keep a sequence of at most so many vectors a row")


class AlignConfig(Run):
    """Two feature sets of the same samples -> one space (regularised CCA)."""

    name: Name
    features: tuple[str, str]
    dim: int = Field(128, gt=0, description="of the common space; fewer where the data have fewer")
    holdout: float = Field(0.2, gt=0, lt=1, description="share of the captions kept for the report")
    seed: int = 0


class IndexConfig(Job):
    """Features -> FAISS index."""

    features: str
    name: Name | None = Field(None, description="default: the name of the features")
    kind: Literal["auto", "flat", "hnsw", "ivf-flat", "ivf-pq"] = "auto"
    metric: Literal["cosine", "l2", "ip"] = "cosine"
    min_recall: float = Field(0.95, gt=0, le=1, description="of the 10 nearest, for every modality of query")
    memory: Size = Field(4_000_000_000, description="bytes that a search may keep in memory")
    delete: tuple[str, ...] = Field((), description="keys to take out, for good")
    check: bool = Field(False, description="change nothing: prove the files and measure the recall again")
    seed: int = Field(0, ge=0)


class ExportConfig(Model):
    """Features -> a file or folder for other tools."""

    dataset: str
    features: str
    to: Literal["parquet", "hf", "lance", "qdrant", "embedding-atlas"]
    out: str = Field(description="a local file or folder that is not there yet")


class EndToEndConfig(Model):
    """Raw corpus -> indexes. A section takes the keys of its stage's config; those above go to every section."""

    dataset: str
    workers: int | None = Field(None, ge=0)
    ray_address: str | None = None
    shard: ShardConfig
    extract: ExtractConfig
    align: list[AlignConfig] = Field(default_factory=list)
    index: list[IndexConfig] = Field(default_factory=list)

    @model_validator(mode="before")
    @classmethod
    def _share(cls, values: dict[str, Any]) -> dict[str, Any]:
        run = {key: values[key] for key in ("dataset",) if key in values}
        job = run | {key: values[key] for key in ("workers", "ray_address") if key in values}
        shared = {"shard": job, "extract": job, "align": run, "index": job}
        return values | {name: _under(keys, values[name]) for name, keys in shared.items() if name in values}


def _under(shared: dict[str, Any], section: Any) -> Any:
    if isinstance(section, list):
        return [_under(shared, part) for part in section]
    return shared | section if isinstance(section, dict) else section
