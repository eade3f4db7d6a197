"""Configs: flags over --set over the file over the defaults; an error names file, key and nearest name."""

from pathlib import Path

import pytest
from pydantic import BaseModel

from mmdata.config import (
    AlignConfig,
    EndToEndConfig,
    ExtractConfig,
    IndexConfig,
    ServeConfig,
    ShardConfig,
    SweepConfig,
    TrainConfig,
    check,
    load,
)
from mmdata.errors import ConfigError
from mmdata.types import Modality

SHARD = {"source": "in", "dataset": "out"}
MINIMAL = {
    ShardConfig: SHARD,
    ExtractConfig: {"dataset": "d", "encoders": ["minilm"]},
    AlignConfig: {"dataset": "d", "name": "n", "features": ["a", "b"]},
    IndexConfig: {"dataset": "d", "features": "a"},
    ServeConfig: {"dataset": "d"},
    EndToEndConfig: {"dataset": "d", "shard": {"source": "in"}, "extract": {"encoders": ["minilm"]}},
}


class Inner(BaseModel, extra="forbid"):
    colour: str = "red"


class Outer(BaseModel, extra="forbid"):
    inner: Inner = Inner()


@pytest.fixture
def yaml(tmp_path):
    def write(content: str) -> str:
        (tmp_path / "my.yaml").write_text(content)
        return str(tmp_path / "my.yaml")

    return write


def failure(model, path=None, sets=(), flags=None) -> str:
    with pytest.raises(ConfigError) as caught:
        load(model, path, sets, flags)
    return str(caught.value)


@pytest.mark.parametrize(("model", "values"), MINIMAL.items(), ids=lambda item: getattr(item, "__name__", ""))
def test_every_config_needs_only_what_has_no_default(model, values):
    config = check(model, values, "here")
    assert check(model, config.model_dump(mode="json"), "here") == config


@pytest.mark.parametrize(("model", "values"), MINIMAL.items(), ids=lambda item: getattr(item, "__name__", ""))
def test_every_config_refuses_unknown_keys_and_names_the_nearest(model, values):
    with pytest.raises(ConfigError, match="here: unknown key 'datasett'; did you mean 'dataset'"):
        check(model, values | {"datasett": 1}, "here")


@pytest.mark.parametrize(("model", "values"), MINIMAL.items(), ids=lambda item: getattr(item, "__name__", ""))
def test_every_config_says_what_is_missing(model, values):
    with pytest.raises(ConfigError, match="here: dataset: Field required"):
        check(model, {name: value for name, value in values.items() if name != "dataset"}, "here")


def test_the_file_is_over_the_defaults(yaml):
    path = yaml("source: in\ndataset: out\nsamples_per_shard: 7\n")
    config = load(ShardConfig, path)
    assert (config.samples_per_shard, config.shuffle, config.dedup) == (7, None, "none")


def test_set_is_over_the_file_and_flags_are_over_all(yaml):
    path = yaml("source: in\ndataset: out\nsamples_per_shard: 7\nshuffle: 1\nworkers: 1\n")
    config = load(ShardConfig, path, ["shuffle=2", "workers=2"], {"workers": 3, "dedup": None})
    assert (config.samples_per_shard, config.shuffle, config.workers, config.dedup) == (7, 2, 3, "none")


END_TO_END = """
dataset: d
workers: 3
shard: {source: a}
extract: {encoders: [x, y]}
index:
- {features: a}
- {features: b}
"""


def test_set_reaches_nested_keys_and_lists(yaml):
    sets = ["shard.source=b", "shard.columns.key=name", "extract.encoders.1=z", "index.1.metric=l2", "align=[]"]
    config = load(EndToEndConfig, yaml(END_TO_END), sets)
    assert (config.shard.source, config.shard.columns) == ("b", {"key": "name"})
    assert config.extract.encoders == ("x", "z")
    assert [(part.features, part.metric) for part in config.index] == [("a", "cosine"), ("b", "l2")]


def test_what_stands_above_the_sections_goes_to_each_unless_it_says_otherwise(yaml):
    config = load(EndToEndConfig, yaml(END_TO_END), ["extract.workers=0"])
    assert (config.shard.workers, config.extract.workers) == (3, 0)
    assert {part.dataset for part in (config.shard, config.extract, *config.index)} == {"d"}


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("shard.sourse=b", "unknown key 'shard.sourse'; did you mean 'source'?"),
        ("index.1.metrc=l2", "unknown key 'index.1.metrc'; did you mean 'metric'?"),
        ("extract.encoders=[]", "extract.encoders: Tuple should have at least 1 item after validation, not 0, not []"),
    ],
)
def test_a_wrong_key_of_a_section_is_named_with_its_section(yaml, assignment, message):
    path = yaml(END_TO_END)
    assert failure(EndToEndConfig, path, [assignment]) == f"{path}: {message}"


def test_set_reads_its_value_as_yaml():
    sets = ["source=in", "dataset=out", "modalities=[image, text]", "shuffle=null", "validate_media=false"]
    config = load(ShardConfig, None, sets)
    assert (config.modalities, config.shuffle, config.validate_media) == ((Modality.IMAGE, Modality.TEXT), None, False)


def test_set_fills_a_key_that_is_empty_in_the_file(yaml):
    path = yaml("source: in\ndataset: out\ncolumns:\n")
    assert load(ShardConfig, path, ["columns.key=name"]).columns == {"key": "name"}


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("workers", "--set workers: write it as key=value"),
        ("dataset.a=1", "--set dataset.a=1: there is no place 'dataset.a' in the config"),
        ("dataset.a.b=1", "--set dataset.a.b=1: there is no place 'dataset.a.b' in the config"),
        ("index.5.metric=l2", "--set index.5.metric=l2: there is no place 'index.5.metric' in the config"),
        ("index.first=l2", "--set index.first=l2: there is no place 'index.first' in the config"),
        ("workers=[", "--set workers=[: '[' is not YAML"),
    ],
)
def test_a_set_that_leads_nowhere_says_so(yaml, assignment, message):
    assert failure(EndToEndConfig, yaml(END_TO_END), [assignment]).startswith(message)


def test_an_unknown_key_of_a_file_names_file_key_and_nearest(yaml):
    path = yaml("source: in\ndataset: out\nsample_per_shard: 7\n")
    assert failure(ShardConfig, path) == f"{path}: unknown key 'sample_per_shard'; did you mean 'samples_per_shard'?"


def test_an_unknown_key_like_no_other_lists_them_all():
    message = failure(IndexConfig, flags={"dataset": "d", "features": "a", "zzz": 1})
    assert message == (
        "the command line: unknown key 'zzz'; there are: dataset, overwrite, workers, cpus_per_worker, "
        "gpus_per_worker, ray_address, sample_timeout, shard_timeout, wait_for_nodes, max_reject_rate, features, name, "
        "kind, metric, min_recall, memory, delete, "
        "check, seed"
    )


def test_an_unknown_nested_key_is_compared_with_its_own_level():
    with pytest.raises(ConfigError, match=r"unknown key 'inner\.color'; did you mean 'colour'"):
        check(Outer, {"inner": {"color": "blue"}}, "here")


def test_every_wrong_key_has_its_line(yaml):
    path = yaml("source: in\ndatset: out\nworkers: many\n")
    assert failure(ShardConfig, path).splitlines() == [
        f"{path}: dataset: Field required",
        f"{path}: workers: Input should be a valid integer, unable to parse string as an integer, not 'many'",
        f"{path}: unknown key 'datset'; did you mean 'dataset'?",
    ]


WRONG = {
    "workers": (-1, "greater than or equal to 0"),
    "cpus_per_worker": (0, "greater than 0"),
    "max_reject_rate": (1.5, "less than or equal to 1"),
    "samples_per_shard": (0, "greater than 0"),
    "shuffle": ("yes", "valid integer"),
    "modalities": (["smell"], "'image', 'audio' or 'text'"),
    "kind": ("zip", "'folder', 'table' or 'webdataset'"),
    "dedup": ("fuzzy", "'none' or 'exact'"),
    "validate_media": ("perhaps", "valid boolean"),
    "columns": ({"picture": "x"}, "'key', 'image', 'audio' or 'text'"),
}


@pytest.mark.parametrize(("key", "wrong"), WRONG.items(), ids=WRONG.keys())
def test_a_wrong_value_names_its_key_and_what_would_do(key, wrong):
    value, wanted = wrong
    with pytest.raises(ConfigError, match=rf"here: {key}.*{wanted}"):
        check(ShardConfig, {**SHARD, key: value}, "here")


def test_no_modality_at_all_is_refused():
    with pytest.raises(ConfigError, match="here: modalities"):
        check(ShardConfig, {**SHARD, "modalities": []}, "here")


def test_what_is_required_must_be_taken():
    with pytest.raises(ConfigError) as caught:
        check(ShardConfig, {**SHARD, "modalities": ["image"], "require": ["image", "text"]}, "here")
    assert str(caught.value) == "here: require has text, which modalities leaves out"


@pytest.mark.parametrize(
    ("written", "size"),
    [
        (1000, 1000),
        ("1000", 1000),
        ("256MB", 256_000_000),
        ("256mb", 256_000_000),
        ("1GiB", 2**30),
        ("1.5 G", 1_500_000_000),
        ("64 KiB", 65536),
        ("2TB", 2 * 10**12),
        ("10B", 10),
    ],
)
def test_sizes_are_bytes_or_have_a_unit(written, size):
    assert check(ShardConfig, {**SHARD, "shard_size": written}, "here").shard_size == size


@pytest.mark.parametrize("written", ["", "big", "-1", "0", "1XB", "MB", "1e9", True, None, [1]])
def test_what_is_no_size_is_refused(written):
    with pytest.raises(ConfigError, match="here: shard_size"):
        check(ShardConfig, {**SHARD, "shard_size": written}, "here")


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "a b"])
def test_a_name_is_no_path(name):
    with pytest.raises(ConfigError, match="here: name"):
        check(IndexConfig, {"dataset": "d", "features": "a", "name": name}, "here")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- a\n- b\n", "must hold keys and values"),
        ("", "must hold keys and values"),
        ("a: [", "cannot be read as YAML"),
        ("source: a\nshuffle: 1\nsource: b\n", "cannot be read as YAML: the key 'source' comes twice"),
        ("columns:\n  key: a\n  key: b\n", "cannot be read as YAML: the key 'key' comes twice"),
        ("shuffle: 2001-02-31\n", "cannot be read as YAML"),
        pytest.param(f"shuffle: {'9' * 5000}\n", "cannot be read as YAML", id="a number of 5000 digits"),
    ],
)
def test_a_file_that_is_no_config_is_named(yaml, content, message):
    path = yaml(content)
    assert failure(ShardConfig, path).startswith(f"{path} {message}")


def test_a_file_that_is_not_there_is_named(tmp_path):
    assert failure(ShardConfig, str(tmp_path / "typo.yaml")).startswith(f"{tmp_path}/typo.yaml cannot be read as YAML")


def test_a_file_of_another_verb_is_told_first():
    told = failure(TrainConfig, str(CONFIGS / "demo/few.yaml")).splitlines()
    assert told[0].endswith("few.yaml: these are keys of another verb: mmdata sweep")
    told = failure(SweepConfig, str(CONFIGS / "demo/end_to_end.yaml")).splitlines()
    assert told[0].endswith("end_to_end.yaml: these are keys of another verb: python -m pipelines.end_to_end")


def test_a_key_of_an_alias_may_be_overridden(yaml):
    text = "a: &a {key: x, text: y}\nsource: s\ndataset: d\nb: &b {<<: *a, key: w}\ncolumns: {<<: *b, text: z}\n"
    assert [line.partition("; ")[0].rpartition(": ")[2] for line in failure(ShardConfig, yaml(text)).splitlines()] == [
        "unknown key 'a'",
        "unknown key 'b'",
    ]


def test_yaml_makes_no_objects(yaml):
    path = yaml("source: !!python/object/apply:os.getcwd []\n")
    assert failure(ShardConfig, path).startswith(f"{path} cannot be read as YAML")


def test_a_config_cannot_be_changed():
    config = check(ShardConfig, SHARD, "here")
    with pytest.raises(ValueError, match="frozen"):
        config.workers = 1


def test_a_local_source_is_absolute_and_a_url_stays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert check(ShardConfig, SHARD, "here").absolute_source() == str(tmp_path / "in")
    assert check(ShardConfig, SHARD | {"source": "s3://b/in"}, "here").absolute_source() == "s3://b/in"


def test_plan_options_are_what_decides_the_shards():
    options = check(ShardConfig, SHARD | {"workers": 4, "modalities": ["text"]}, "here").plan_options()
    assert options == {
        "columns": {},
        "samples_per_shard": 1000,
        "shard_size": 256_000_000,
        "shuffle": None,
        "modalities": ["text"],
        "require": [],
        "dedup": "none",
        "salvage": False,
        "outside": False,
        "validate_media": True,
    }


RECIPES = {
    "demo/end_to_end.yaml": EndToEndConfig,
    "demo/joint.yaml": TrainConfig,
    "demo/common.yaml": TrainConfig,
    "demo/sweep.yaml": SweepConfig,
    "demo/few.yaml": SweepConfig,
    "demo/pretrain.yaml": TrainConfig,
    "demo/transfer.yaml": SweepConfig,
    "digits/halves.yaml": TrainConfig,
    "emoji/category.yaml": TrainConfig,
    "emoji/end_to_end.yaml": EndToEndConfig,
    "mfeat/joint.yaml": SweepConfig,
    "stamps/joint.yaml": SweepConfig,
    "stamps/pretrain.yaml": TrainConfig,
    "stamps/transfer.yaml": SweepConfig,
    "stamps/end_to_end.yaml": EndToEndConfig,
    "stamps/space.yaml": TrainConfig,
    "mfeat/digit.yaml": TrainConfig,
    "stamps/category.yaml": TrainConfig,
    "vision_language/extract.yaml": ExtractConfig,
    "vision_language/joint.yaml": TrainConfig,
}


CONFIGS = Path(__file__).parent.parent / "configs"


@pytest.mark.parametrize("name", [path.relative_to(CONFIGS).as_posix() for path in sorted(CONFIGS.rglob("*.yaml"))])
def test_every_recipe_is_a_config(name: str) -> None:
    assert load(RECIPES[name], str(CONFIGS / name)).dataset


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("train.epoch=3", "unknown key 'train.epoch'; did you mean 'epochs'?"),
        ("model.fusoin=gmu", "unknown key 'model.fusoin'; did you mean 'fusion'?"),
        ("tasks.digit.colunm=x", "unknown key 'tasks.digit.multiclass.colunm'; did you mean 'column'?"),
        ("data.feature=x", "unknown key 'data.0.feature'; did you mean 'features'?"),
        ("freeze=stems", "freeze stems needs init, the head that is kept"),
        ("split.test=0.9", "split: validation 0.15 and test 0.9 leave nothing to train on"),
    ],
)
def test_a_wrong_key_of_a_training_config_is_named(key: str, message: str) -> None:
    assert message in failure(TrainConfig, str(Path(__file__).parent.parent / "configs/mfeat/digit.yaml"), [key])
