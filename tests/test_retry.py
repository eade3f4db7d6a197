"""Rejects tried again after a fix: the shards that hold them and nothing else, under the same ids."""

from dataclasses import replace
from pathlib import Path

import orjson
import pytest
from crashing import files, receipts, run_stage_apart
from small_job import BROKEN, HERE, SAMPLES, run_stage, write_corpus
from tiny_files import picture
from typer.testing import CliRunner

from mmdata.cli import app
from mmdata.config import ProjectConfig
from mmdata.errors import ConfigError, Conflict, NotFound
from mmdata.stages.project import project
from mmdata.stages.retry import retry
from mmdata.stages.verify import verify
from mmdata.storage.dataset import Dataset, predictions_folder
from mmdata.storage.features import Features
from mmdata.storage.receipts import commit, forget, read_receipts, read_rejects, rejects_file
from mmdata.types import Outcome, Reason, Reject

OF_THE_BROKEN = {"shards", "features/colours", "features/letters", "features/pair.image", "features/pair.text"}


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A dataset and its corpus, to be written into."""
    write_corpus(tmp_path / "corpus")
    for stage in ("shard", "extract", "align", "index"):
        run_stage(stage, str(tmp_path / "dataset"), str(tmp_path / "corpus"))
    return tmp_path


def mend(corpus: Path) -> None:
    (corpus / f"{BROKEN}.png").write_bytes(picture())
    (corpus / f"{BROKEN}.txt").write_text("mended at last")


def finish(here: Path) -> Dataset:
    """The commands that come after a retry."""
    for stage in ("shard", "extract"):
        run_stage(stage, str(here / "dataset"), str(here / "corpus"))
    project(ProjectConfig(dataset=str(here / "dataset"), head="pair"), HERE)
    run_stage("index", str(here / "dataset"), str(here / "corpus"))
    return Dataset.open(str(here / "dataset"))


def test_a_mended_sample_gets_in_under_its_old_id_and_no_other_shard_is_touched(here: Path) -> None:
    dataset = Dataset.open(str(here / "dataset"))
    before = receipts(here / "dataset")
    mend(here / "corpus")
    with pytest.raises(
        Conflict, match=f"where only rejects were mended: mmdata rejects {dataset.url} --retry, and this"
    ):
        run_stage("shard", dataset.url, str(here / "corpus"))
    done = retry(dataset, None, ())
    assert (done.samples, done.revised) == (1, 1)
    assert done.shards == {folder: ["000001"] for folder in OF_THE_BROKEN}
    kept = {name: time for name, time in before.items() if not name.endswith("000001.json")}
    assert receipts(here / "dataset") == kept
    finish(here)
    assert {name: time for name, time in receipts(here / "dataset").items() if name in kept} == kept
    rows = Features(dataset, "pair.image").to_arrow(["id", "key"])
    assert rows["id"].to_pylist() == list(range(SAMPLES))
    assert rows["key"].to_pylist()[17] == BROKEN
    assert read_rejects(dataset.store, "shards") == []
    found = verify(dataset)
    assert found.damaged == []
    assert {path.rpartition("/")[0] for path in found.loose} == {"indexes/pair.image/000001"}  # of those who read it


def test_after_a_retry_the_plan_is_that_of_the_source_and_can_be_tried_again(here: Path) -> None:
    dataset = Dataset.open(str(here / "dataset"))
    for _ in range(2):
        (here / "corpus" / f"{BROKEN}.png").write_bytes(b"still not a picture" + bytes(_))
        assert retry(dataset, "shards", ()).revised == 1
        finish(here)
        assert [reject.key for reject in read_rejects(dataset.store, "shards")] == [BROKEN]
    mend(here / "corpus")
    retry(dataset, None, ["decode_failed", "unsupported"])
    finish(here)
    assert len(Features(dataset, "colours").to_arrow(["id"])) == SAMPLES


def test_without_a_fix_a_retry_comes_to_the_same_bytes(here: Path) -> None:
    before = {
        name: path.read_bytes()
        for name, path in files(here / "dataset").items()
        if name.endswith((".tar", "00.parquet"))
    }
    retry(Dataset.open(str(here / "dataset")), None, ())
    finish(here)
    assert {name: (here / "dataset" / name).read_bytes() for name in before} == before


def test_a_source_that_changed_in_more_than_its_rejects_is_refused_and_nothing_is_touched(here: Path) -> None:
    dataset = Dataset.open(str(here / "dataset"))
    before = sorted(files(here / "dataset"))
    mend(here / "corpus")
    (here / "corpus/k03.txt").write_text("something else entirely")
    with pytest.raises(Conflict, match=r"k03\.png has changed, too, which was no reject"):
        retry(dataset, None, ())
    (here / "corpus/another.txt").write_text("one more")
    with pytest.raises(Conflict, match="it has 61 samples, not the same 60"):
        retry(dataset, None, ())
    assert sorted(files(here / "dataset")) == before


def test_only_what_was_asked_is_tried_again(here: Path) -> None:
    dataset = Dataset.open(str(here / "dataset"))
    assert retry(dataset, None, ["oom"]).shards == {}
    assert retry(dataset, "letters", ()).shards == {}
    with pytest.raises(ConfigError, match="no reason 'bad_luck'; there are: empty, unsupported"):
        retry(dataset, None, ["bad_luck"])
    with pytest.raises(NotFound, match="no stage 'nosuch'; there are: shards, colours"):
        retry(dataset, "nosuch", ())


def test_predictions_are_tried_again_by_themselves_and_with_what_they_were_made_from(here: Path) -> None:
    dataset = Dataset.open(str(here / "dataset"))
    for stage in ("train", "predict"):
        run_stage(stage, dataset.url, str(here / "corpus"))
    folder = predictions_folder("kinds")
    made = read_receipts(dataset.store, folder)["000000"]
    forget(dataset.store, folder, made)
    lost = Reject(0, "k00", "k00", "", Outcome.REJECTED, Reason.CRASH, "its worker died")
    files = {"parquet": b"of the others"} | rejects_file([lost])
    commit(dataset.store, folder, replace(made, rows_out=made.rows_out - 1, rejected={"crash": 1}), files)
    done = retry(dataset, "predictions/kinds", ())
    assert (done.samples, done.shards) == (1, {folder: ["000000"]})
    run_stage("predict", dataset.url, str(here / "corpus"))
    assert read_receipts(dataset.store, folder)["000000"].outputs == made.outputs
    assert retry(dataset, None, ()).shards == {name: ["000001"] for name in {*OF_THE_BROKEN, folder}}


def test_the_command_tells_what_will_be_tried_again(here: Path) -> None:
    mend(here / "corpus")
    run = CliRunner().invoke(app, ["rejects", str(here / "dataset"), "--retry"])
    assert "1 samples will be tried again, 1 of changed sources" in run.output
    assert "  shards: 1 shards, as 000001" in run.output
    again = CliRunner().invoke(app, ["rejects", str(here / "dataset"), "--retry", "--json"])
    assert orjson.loads(again.output) == {"samples": 0, "shards": {}, "revised": 0}


@pytest.mark.parametrize("point", ["store.deleted:9", "store.replaced:1"])
def test_a_retry_that_is_killed_is_finished_by_the_same_commands(point: str, here: Path) -> None:
    mend(here / "corpus")
    killed = run_stage_apart("retry", here / "dataset", here / "corpus", point)
    assert (killed.fired, killed.code) == (True, -9)
    assert run_stage_apart("retry", here / "dataset", here / "corpus").code == 0
    dataset = finish(here)
    assert Features(dataset, "pair.image").to_arrow(["id"])["id"].to_pylist() == list(range(SAMPLES))
    assert verify(dataset).damaged == []
