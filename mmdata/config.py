"""One model a stage. Flags go over --set, --set over the file, the file over the defaults."""

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from mmdata.errors import ConfigError
from mmdata.types import Modality

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


def _bytes(value: Any) -> Any:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]I?)?B?", str(value).strip(), re.IGNORECASE)
    if match is None:
        raise ValueError("a size is a number of bytes, or like 256MB or 1GiB")
    return int(float(match[1]) * UNITS[(match[2] or "").upper()])


Size = Annotated[int, BeforeValidator(_bytes), Field(gt=0)]
Rate = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[\w][\w.-]*$")]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Run(_Model):
    dataset: str = Field(description="folder, or s3://, gs:// or az:// prefix, of the dataset")
    overwrite: bool = Field(False, description="make again what was made from something else")


class _Job(_Run):
    workers: int | None = Field(None, ge=0, description="Ray workers; 0 is this process without Ray")
    cpus_per_worker: float | None = Field(None, gt=0)
    gpus_per_worker: float | None = Field(None, ge=0)
    ray_address: str | None = Field(None, description="of a running cluster; default: RAY_ADDRESS")
    max_reject_rate: Rate = Field(0.05, description="above it the job ends with exit code 3")


class ShardConfig(_Job):
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
        names = ("columns", "samples_per_shard", "shard_size", "shuffle", "modalities", "require", "dedup")
        return {name: self.model_dump(mode="json")[name] for name in (*names, "validate_media")}


class ExtractConfig(_Job):
    """Shards -> features."""

    encoders: tuple[str, ...] = Field(min_length=1, description="[NAME=]SPEC of each encoder")
    batch_size: int | None = Field(None, gt=0, description="default: a good one for the device")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    dtype: Literal["float16", "float32"] = Field("float16", description="of the stored vectors")
    windows: Literal["mean", "rows", "cut"] = Field("mean", description="of texts and sounds longer than the model")
    window_seconds: float | None = Field(None, gt=0, description="of sound; default: what the encoder was made for")
    min_side: int = Field(0, ge=0, description="JPEGs may be decoded smaller, down to this; 0: exactly")
    background: str = Field("#ffffff", pattern="^#[0-9a-f]{6}$", description="below transparent pixels")
    tokens: int = Field(0, ge=0, description="also keep a sequence of at most so many vectors a row")


class AlignConfig(_Run):
    """Two feature sets of the same samples -> one space (regularised CCA)."""

    name: Name
    features: tuple[str, str]
    dim: int = Field(128, gt=0, description="of the common space; fewer where the data have fewer")
    holdout: float = Field(0.2, gt=0, lt=1, description="share of the captions kept for the report")
    seed: int = 0


class IndexConfig(_Run):
    """Features -> FAISS index."""

    features: str
    name: Name | None = Field(None, description="default: the name of the features")
    kind: Literal["auto", "flat", "ivf-flat"] = "auto"
    metric: Literal["cosine", "l2", "ip"] = "cosine"
    seed: int = 0


class EndToEndConfig(_Model):
    """Raw corpus -> indexes. A section takes the keys of its stage's config; those above go to every section."""

    dataset: str
    workers: int | None = Field(None, ge=0)
    ray_address: str | None = None
    shard: ShardConfig
    extract: ExtractConfig
    align: list[AlignConfig] = []
    index: list[IndexConfig] = []

    @model_validator(mode="before")
    @classmethod
    def _share(cls, values: dict[str, Any]) -> dict[str, Any]:
        run = {key: values[key] for key in ("dataset",) if key in values}
        job = run | {key: values[key] for key in ("workers", "ray_address") if key in values}
        shared = {"shard": job, "extract": job, "align": run, "index": run}
        return values | {name: _under(keys, values[name]) for name, keys in shared.items() if name in values}


def _under(shared: dict[str, Any], section: Any) -> Any:
    if isinstance(section, list):
        return [_under(shared, part) for part in section]
    return shared | section if isinstance(section, dict) else section


Config = TypeVar("Config", bound=BaseModel)


def load(
    model: type[Config],
    path: str | None = None,
    sets: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
) -> Config:
    """A config from a YAML file, `a.b=c` overrides and flags (None means not given).

    Raises ConfigError that names the file, the key and the nearest name there is.
    """
    values = _read(path) if path else {}
    for assignment in sets:
        _assign(values, assignment)
    given = {key: value for key, value in (flags or {}).items() if value is not None}
    return check(model, values | given, path or "the command line")


def check(model: type[Config], values: Mapping[str, Any], where: str) -> Config:
    """`values` as a config, or a ConfigError with one line for each wrong key."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines = [_explain(model, problem) for problem in error.errors()]
        raise ConfigError("\n".join(f"{where}: {line}" for line in lines)) from error


def _read(path: str) -> dict[str, Any]:
    try:
        values = yaml.safe_load(Path(path).read_text())
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold keys and values")
    return values


def _assign(values: dict[str, Any], assignment: str) -> None:
    key, equals, text = assignment.partition("=")
    if not equals:
        raise ConfigError(f"--set {assignment}: write it as key=value")
    *path, last = key.split(".")
    here: Any = values
    try:
        for step in path:
            if isinstance(here, dict) and here.get(step) is None:
                here[step] = {}
            here = here[int(step) if isinstance(here, list) else step]
        here[int(last) if isinstance(here, list) else last] = yaml.safe_load(text)
    except (TypeError, IndexError, ValueError) as error:
        raise ConfigError(f"--set {assignment}: there is no place {key!r} in the config") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {assignment}: {text!r} is not YAML: {error}") from error


def _explain(model: type[BaseModel], problem: Any) -> str:
    key = ".".join(str(step) for step in problem["loc"])
    if not key:
        return str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] != "extra_forbidden":
        message = str(problem["msg"]).removeprefix("Value error, ")
        return f"{key}: {message}" + (f", not {problem['input']!r}" if problem["type"] != "missing" else "")
    names = _names(model, problem["loc"][:-1])
    near = get_close_matches(str(problem["loc"][-1]), names, 1)
    return f"unknown key {key!r}; " + (f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(names)}")


def _names(model: type[BaseModel], path: Sequence[Any]) -> list[str]:
    for step in path:
        field = model.model_fields.get(str(step))
        inner = [t for t in (field.annotation, *get_args(field.annotation)) if isinstance(t, type)] if field else []
        model = next((t for t in inner if issubclass(t, BaseModel)), model)
    return list(model.model_fields)
