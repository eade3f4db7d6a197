"""YAML, `--set` and flags to a config, and messages that name the key."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from mmdata.config import build, learn, serve
from mmdata.errors import ConfigError

Config = TypeVar("Config", bound=BaseModel)
MAX_VALUES = 100_000
WRONG = (yaml.YAMLError, ValueError, RecursionError)
"""What PyYAML raises: a ValueError for a date or a number that cannot be, or bytes that are no UTF-8."""
VERBS: dict[str, type[BaseModel]] = {
    "mmdata shard": build.ShardConfig,
    "mmdata extract": build.ExtractConfig,
    "mmdata align": build.AlignConfig,
    "mmdata index": build.IndexConfig,
    "mmdata export": build.ExportConfig,
    "python -m pipelines.end_to_end": build.EndToEndConfig,
    "mmdata train": learn.TrainConfig,
    "mmdata evaluate": learn.EvaluateConfig,
    "mmdata predict": learn.PredictConfig,
    "mmdata project": learn.ProjectConfig,
    "mmdata probe": learn.ProbeConfig,
    "mmdata sweep": learn.SweepConfig,
    "mmdata serve": serve.ServeConfig,
}


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
        lines = [*_of_another(model, values), *(_explain(model, problem) for problem in error.errors())]
        raise ConfigError("\n".join(f"{where}: {line}" for line in lines)) from error


def _of_another(model: type[BaseModel], values: Mapping[str, Any]) -> list[str]:
    """That the keys are those of one other verb, where they are."""
    verbs = [verb for verb, other in VERBS.items() if values.keys() <= other.model_fields.keys()]
    is_other = len(verbs) == 1 and VERBS[verbs[0]] is not model
    return [f"these are keys of another verb: {verbs[0]}"] if is_other else []


class _Loader(yaml.SafeLoader):
    """Plain values only, and no key twice: PyYAML would take the last without a word."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        seen: set[tuple[str, str]] = set()
        for key in keys:
            if (key.tag, key.value) in seen:
                raise yaml.MarkedYAMLError(problem=f"the key {key.value!r} comes twice", problem_mark=key.start_mark)
            seen.add((key.tag, key.value))
        return node


def _values(text: str) -> Any:
    return _Loader(text).get_single_data()


def _read(path: str) -> dict[str, Any]:
    try:
        values = _values(Path(path).read_text())
        size = _size(values, {})
    except (OSError, *WRONG) as error:
        raise ConfigError(f"{path} cannot be read as YAML: {error}") from error
    if size > MAX_VALUES:
        raise ConfigError(f"{path} has {size} values once its aliases are written out, limit {MAX_VALUES}")
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold keys and values")
    return values


def _size(value: Any, known: dict[int, int]) -> int:
    """How many values there are, each alias counted as often as it is used: a few lines can make a billion."""
    if id(value) not in known:
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        known[id(value)] = MAX_VALUES + 1  # while it is being counted: a list that holds itself has no end
        known[id(value)] = 1 + sum(_size(one, known) for one in inner)
    return known[id(value)]


def _assign(values: dict[str, Any], assignment: str) -> None:
    key, equals, text = assignment.partition("=")
    if not equals:
        raise ConfigError(f"--set {assignment}: write it as key=value")
    try:
        value = _values(text)
    except WRONG as error:
        raise ConfigError(f"--set {assignment}: {text!r} is not YAML: {error}") from error
    try:
        assign(values, key, value)
    except ConfigError as error:
        raise ConfigError(f"--set {assignment}: {error}") from error


def assign(values: dict[str, Any], key: str, value: Any) -> None:
    """Set `a.b` or `a.0` in a config that is not checked yet. ConfigError where there is no such place."""
    *path, last = key.split(".")
    here: Any = values
    try:
        for step in path:
            if isinstance(here, dict) and here.get(step) is None:
                here[step] = {}
            here = here[int(step) if isinstance(here, list) else step]
        here[int(last) if isinstance(here, list) else last] = value
    except (TypeError, IndexError, ValueError) as error:
        raise ConfigError(f"there is no place {key!r} in the config") from error


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
    """The keys there are at a place: steps are fields, keys of a dict, places of a list and tags of a union."""
    here: Any = model
    for step in map(str, path):
        models = _models(here)
        fields = [m.model_fields[step].annotation for m in models if step in m.model_fields]
        tagged = [m for m in models if "type" in m.model_fields and step in get_args(m.model_fields["type"].annotation)]
        here = next(iter([*fields, *tagged]), here)
    return list(dict.fromkeys(name for m in _models(here) for name in m.model_fields))


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models(inner)]
