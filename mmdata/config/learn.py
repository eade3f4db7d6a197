"""The stages that learn: train, evaluate, predict, project, probe, sweep."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from mmdata.config.model import Job, Model, Name, Rate, Run

InputName = Annotated[str, Field(pattern=r"^[A-Za-z]\w*$")]
Shots = Annotated[int, Field(gt=0)]
Operator = Literal["linear", "concat_mlp", "gmu", "film", "transformer", "bottleneck", "lmf"]


class SourceConfig(Model):
    """Feature sets of one dataset, by the input that they feed."""

    dataset: str | None = Field(None, description="default: the dataset that the head goes to")
    features: dict[InputName, str] = Field(min_length=1, description="input: NAME, or NAME#tokens")
    labels: str | None = Field(None, description="a table (csv, jsonl, parquet) with a column key; default: metadata")


class SplitConfig(Model):
    """Train, validation and test: by a column, or by the hash of a group."""

    column: str | None = Field(None, description="a column that says train, validation or test")
    group: str = Field("caption", description="equal values of it stay together; the key where it is empty")
    validation: Rate = 0.15
    test: Rate = 0.15
    seed: int = 0
    apart: tuple[str, ...] = Field(("caption",), description="columns whose values may not be on two sides")

    @model_validator(mode="after")
    def _leave_rows_to_train(self) -> "SplitConfig":
        if self.validation + self.test >= 1:
            raise ValueError(f"validation {self.validation:g} and test {self.test:g} leave nothing to train on")
        return self


class ModelConfig(Model):
    """The trunk: a stem an input and a fusion operator."""

    fusion: Operator | None = Field(None, description="default: concat_mlp; transformer above 3 inputs or on tokens")
    dim: int = Field(256, gt=0, multiple_of=8)
    layers: int = Field(2, gt=0)
    dropout: float = Field(0.2, ge=0, lt=1)


class _Task(Model):
    weight: float = Field(1.0, ge=0, description="in the sum of the losses; 0 leaves the task out")


class MulticlassConfig(_Task):
    """One class of several."""

    type: Literal["multiclass"]
    column: str
    label_smoothing: float = Field(0.0, ge=0, lt=1)


class MultilabelConfig(_Task):
    """Any number of labels: a column of lists."""

    type: Literal["multilabel"]
    column: str


class RegressionConfig(_Task):
    """A number."""

    type: Literal["regression"]
    column: str


class AlignTaskConfig(_Task):
    """Inputs into one space."""

    type: Literal["align"]
    between: tuple[InputName, ...] = Field(min_length=2)
    column: str = Field("caption", description="rows with the same value are no negatives of each other")
    loss: Literal["infonce", "siglip"] = "infonce"
    dim: int = Field(128, gt=0)
    layers: int = Field(0, ge=0)
    fusemix: float = Field(1.0, ge=0)


class MatchConfig(_Task):
    """Whether two inputs belong together."""

    type: Literal["match"]
    between: tuple[InputName, InputName]
    column: str = Field("caption", description="rows with the same value are no wrong pairs")


class ReconstructConfig(_Task):
    """Each input from the fused state."""

    type: Literal["reconstruct"]
    alpha: dict[InputName, float] = Field(min_length=1, description="weight of each input that is rebuilt")


TaskConfig = Annotated[
    MulticlassConfig | MultilabelConfig | RegressionConfig | AlignTaskConfig | MatchConfig | ReconstructConfig,
    Field(discriminator="type"),
]


class RecipeConfig(Model):
    """How to train."""

    monitor: str | None = Field(
        None, description="TASK/FIGURE on validation; default: the main one of the task, or tasks/mean"
    )
    epochs: int = Field(40, gt=0)
    batch: int = Field(256, gt=0, description="rows")
    lr: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.05, ge=0)
    warmup: Rate = Field(0.05, description="share of the steps")
    clip: float = Field(1.0, gt=0, description="norm of the gradient")
    patience: int = Field(8, gt=0, description="epochs without a better figure")
    modality_dropout: float = Field(0.3, ge=0, lt=1)
    balance: Literal["ratio", "uncertainty", "fixed"] = "ratio"
    seed: int = 0


class TrainConfig(Run):
    """Features -> a head."""

    name: Name = Field(description="of the head")
    data: list[SourceConfig] = Field(min_length=1)
    split: SplitConfig = SplitConfig.model_validate({})
    model: ModelConfig = ModelConfig.model_validate({})
    tasks: dict[InputName, TaskConfig] = Field(min_length=1)
    train: RecipeConfig = RecipeConfig.model_validate({})
    init: Name | None = Field(None, description="a head whose stems and fusion to start from")
    freeze: Literal["none", "stems", "fusion"] = Field("none", description="what of init stays: fusion is both")
    shots: Shots | dict[InputName, Shots] | None = Field(
        None, description="labelled training rows a class: of the first task, or by task; default: all"
    )
    workers: int = Field(1, gt=0, description="processes that share every batch, on Ray Train")
    cpus_per_worker: float = Field(1.0, gt=0)
    gpus_per_worker: float = Field(0.0, ge=0, description="1 where each has a GPU of its own")
    ray_address: str | None = Field(None, description="of a running cluster; default: RAY_ADDRESS")
    device: str | None = Field(None, description="cpu, cuda ...; default: cuda where there is one")
    checkpoint: float = Field(20.0, ge=0, description="seconds between checkpoints")
    baselines: bool = Field(True, description="put the simplest predictors beside the head on validation")
    trackers: tuple[str, ...] = Field(("tensorboard",), description="where figures go: tensorboard, or MODULE:CLASS")

    @field_validator("data", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return [value] if isinstance(value, dict) else value

    @property
    def labels_of_a_class(self) -> dict[str, int]:
        """`shots` by task."""
        given = {next(iter(self.tasks)): self.shots} if isinstance(self.shots, int) else self.shots
        return given or {}

    @model_validator(mode="after")
    def _count_known_tasks(self) -> "TrainConfig":
        unknown = [name for name in self.labels_of_a_class if name not in self.tasks]
        if unknown:
            raise ValueError(f"shots names {', '.join(unknown)}; the tasks are {', '.join(self.tasks)}")
        return self

    @model_validator(mode="after")
    def _freeze_something(self) -> "TrainConfig":
        if self.freeze != "none" and self.init is None:
            raise ValueError(f"freeze {self.freeze} needs init, the head that is kept")
        return self


class EvaluateConfig(Run):
    """A head -> figures beside baselines."""

    head: Name
    part: Literal["train", "validation", "test"] = "test"
    missing: tuple[str, ...] = Field((), description="inputs to leave out, or each: every subset")
    baselines: bool = True


class PredictConfig(Job):
    """Features -> what a head says of each sample, a Parquet a shard."""

    head: Name
    head_from: str | None = Field(None, description="a dataset to copy the head from, unless it is here")
    features: dict[InputName, str] = Field({}, description="input: feature set; default: those it was trained on")
    missing: tuple[InputName, ...] = Field((), description="inputs that the samples have not")


class ProjectConfig(Job):
    """Features -> a head's output as features."""

    head: Name
    head_from: str | None = Field(None, description="a dataset to copy the head from, unless it is here")
    features: dict[InputName, str] = Field({}, description="input: feature set; default: those it was trained on")


class ProbeConfig(Model):
    """Features -> a linear probe (logistic regression)."""

    dataset: str
    features: tuple[str, ...] = Field(min_length=1, description="one feature set, or several side by side")
    column: str = Field(description="the label")
    labels: str | None = None
    split: SplitConfig = SplitConfig.model_validate({})
    shots: int | None = Field(None, gt=0, description="training rows a class; default: all")
    seeds: int = Field(1, gt=0, description="draws of the shots")


class SweepConfig(Job):
    """One training config, many settings; `dataset` is where the heads go."""

    name: Name
    train: TrainConfig
    over: dict[str, list[Any]] = Field({}, description="KEY: values, as train.lr: [0.001, 0.003]; all combinations")
    settings: dict[str, dict[str, Any]] = Field({}, description="NAME: {KEY: value}; instead of over, or beside it")
    seeds: int = Field(1, gt=0, description="seeds from that of the config on, of every setting")
    part: Literal["validation", "test"] = Field("validation", description="judged on; test when all is chosen")

    @model_validator(mode="before")
    @classmethod
    def _share(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not isinstance(values.get("train"), dict):
            return values
        shared = {key: values[key] for key in ("dataset", "name") if key in values}
        return values | {"train": shared | values["train"]}
