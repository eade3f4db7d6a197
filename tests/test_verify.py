"""Any byte that changes, in any file of a dataset, is found; and what nothing names is swept."""

import os
import shutil
import time
from pathlib import Path

import pytest
from small_job import (
    BROKEN,
    HERE,
    SAMPLES,
    SHARDS,
    run_all,
    run_stage,
    shard_config,
    train_config,
    write_corpus,
)
from typer.testing import CliRunner

from mmdata.cli import app
from mmdata.config import AlignConfig, EvaluateConfig, ExtractConfig, IndexConfig
from mmdata.errors import Conflict, Damage
from mmdata.retrieval.generation import read_facts
from mmdata.stages.align import align
from mmdata.stages.evaluate import evaluate
from mmdata.stages.extract import extract
from mmdata.stages.index import index
from mmdata.stages.retry import retry
from mmdata.stages.shard import shard
from mmdata.stages.status import status
from mmdata.stages.train import train_head
from mmdata.stages.verify import gc, verify
from mmdata.storage.dataset import Dataset
from mmdata.storage.plan import read_plan
from mmdata.storage.receipts import commit, read_receipts
from mmdata.storage.sealed import seal, unseal


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset with files of every kind. Do not write into it."""
    folder = tmp_path_factory.mktemp("made")
    corpus = write_corpus(folder / "corpus")
    run_all(str(folder / "dataset"), str(corpus))
    evaluate(EvaluateConfig(dataset=str(folder / "dataset"), head="kinds", baselines=False))
    return folder


@pytest.fixture
def dataset(made: Path, tmp_path: Path) -> Dataset:
    shutil.copytree(made / "dataset", tmp_path / "dataset")
    return Dataset.open(str(tmp_path / "dataset"))


def files(dataset: Dataset) -> list[str]:
    root = Path(dataset.url)
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def flip(dataset: Dataset, path: str, place: int, bit: int = 1) -> None:
    file = Path(dataset.url, path)
    data = bytearray(file.read_bytes())
    data[place] ^= bit
    file.write_bytes(data)


KINDS = {
    "dataset.json",
    "shards/plan.json",
    "shards/plan.parquet",
    "shards/000000.tar",
    "shards/000000.samples.parquet",
    "shards/000001.rejects.parquet",
    "shards/000000.json",
    "shards/receipts.parquet",
    "shards/receipts.json",
    "features/colours/encoder.json",
    "features/colours/000000.parquet",
    "features/colours/000000.json",
    "features/colours/receipts.parquet",
    "features/pair.image/000000.parquet",
    "features/kinds.fused/000000.parquet",
    "heads/pair/head.json",
    "heads/pair/head.safetensors",
    "heads/pair/metrics.json",
    "heads/kinds/head.safetensors",
    "heads/kinds/evaluation.test.json",
    "heads/kinds/report.json",
    "heads/kinds/report.md",
    "heads/kinds/curves.png",
    "indexes/pair.image/index.json",
    "indexes/pair.image/000001/index.faiss",
    "indexes/pair.image/000001/rows.arrow",
    "indexes/pair.image/000001/trained.faiss",
    "indexes/pair.image/000001/shards.parquet",
    "indexes/pair.image/000001/deleted.parquet",
    "predictions/kinds/000000.parquet",
    "predictions/kinds/000000.json",
    "predictions/kinds/receipts.parquet",
    "predictions/kinds/receipts.json",
    "features/letters/receipts.json",
    "heads/kinds/kind.confusion.png",
    "heads/kinds/kind.calibration.png",
}
"""A file of each kind; the test below fails when a kind is missing here."""


def kind(path: str) -> str:
    folder, _, name = path.rpartition("/")
    return f"{folder.split('/')[0]}/{name.removeprefix(name[:6]) if name[:6].isdigit() else name}"


def test_a_dataset_as_it_was_written_is_whole_and_every_file_of_it_is_accounted_for(dataset: Dataset) -> None:
    found = verify(dataset)
    assert (found.damaged, found.loose) == ([], [])
    assert found.files == len(files(dataset))
    assert {kind(path) for path in files(dataset)} == {kind(path) for path in KINDS}


@pytest.mark.parametrize("path", sorted(KINDS))
def test_a_flipped_byte_anywhere_in_any_kind_of_file_is_found(dataset: Dataset, path: str) -> None:
    size = Path(dataset.url, path).stat().st_size
    for place in {0, 1, size // 3, size // 2, size - 2, size - 1}:
        for bit in (1, 3, 128):
            flip(dataset, path, place, bit)
            found = verify(dataset) if path != "dataset.json" else verify(Dataset(dataset.url))
            assert path in {finding.path for finding in found.damaged}, (place, bit)
            flip(dataset, path, place, bit)
    assert verify(dataset).damaged == []


@pytest.mark.parametrize("path", sorted(KINDS - {"dataset.json"}))
def test_a_file_that_is_gone_is_found_if_it_was_proven(dataset: Dataset, path: str) -> None:
    Path(dataset.url, path).unlink()
    found = verify(dataset)
    if not path.endswith(".json") or path.rpartition("/")[2] in ("plan.json", "encoder.json", "metrics.json"):
        assert [finding.path for finding in found.damaged] == [path]
    else:  # a receipt that is gone is a shard to do, and what it proved is left over
        assert found.damaged == []


def test_the_command_says_which_sample_at_which_byte_and_exits_with_seven(dataset: Dataset) -> None:
    flip(dataset, "shards/000001.tar", 512 + 3)
    run = CliRunner().invoke(app, ["verify", dataset.url])
    assert isinstance(run.exception, Damage)
    assert run.exception.exit_code == 7
    assert "shards/000001.tar is not what was written; 1 of 9 samples are damaged, the first is 'k10'" in run.output
    assert "at byte 512" in run.output
    assert "shards shard 000001: run the same command again" in str(run.exception)
    as_json = CliRunner().invoke(app, ["verify", dataset.url, "--json"])
    assert '"path": "shards/000001.tar"' in as_json.output


def test_damage_between_the_samples_of_a_tar_names_the_member_before_it(dataset: Dataset) -> None:
    flip(dataset, "shards/000000.tar", 1)
    (finding,) = verify(dataset).damaged
    assert "all samples are whole; " in finding.problem
    assert "at byte 0" in finding.problem


def test_repair_takes_damaged_shards_back_and_the_same_commands_make_the_same_bytes(
    dataset: Dataset, made: Path
) -> None:
    damaged = ["shards/000002.tar", "shards/000003.json", "features/colours/000001.parquet"]
    for path in damaged:
        flip(dataset, path, 700)
    found = verify(dataset, repair=True)
    assert {finding.path for finding in found.damaged} == set(damaged)
    for stage in ("shard", "extract"):
        run_stage(stage, dataset.url, str(made / "corpus"))
    assert verify(dataset).damaged == []
    for path in damaged:
        if not path.endswith(".json"):
            assert Path(dataset.url, path).read_bytes() == (made / "dataset" / path).read_bytes()


def make_again(path: str) -> list[str]:
    """The stages, in order, that the report advises for a damaged file."""
    folder, *rest = path.split("/")
    if folder in ("features", "heads", "indexes"):
        folder = rest[0]
    return {
        "dataset.json": [],
        "shards": ["shard"],
        "colours": ["extract"],
        "letters": ["extract"],
        "pair.image": ["align"],
        "kinds.fused": ["project"],
        "predictions": ["predict"],
    }.get(folder, [])


def run_overwriting(dataset: str, path: str) -> None:
    if path.startswith("indexes/"):
        index(IndexConfig(dataset=dataset, features="pair.image", overwrite=True), HERE)
    elif path.startswith("heads/pair/"):
        features = ("letters", "colours")
        align(AlignConfig(dataset=dataset, name="pair", features=features, holdout=0.45, dim=4, overwrite=True), HERE)
    else:
        train_head(train_config(dataset, overwrite=True))


@pytest.mark.parametrize("how", ["flipped", "gone"])
@pytest.mark.parametrize("path", sorted(KINDS))
def test_what_the_report_advises_mends_a_file_of_any_kind(dataset: Dataset, made: Path, path: str, how: str) -> None:
    if how == "flipped":
        flip(dataset, path, Path(dataset.url, path).stat().st_size // 2)
    else:
        Path(dataset.url, path).unlink()
    run = CliRunner().invoke(app, ["verify", dataset.url, "--repair"])
    if how == "gone" and not isinstance(run.exception, Damage):
        return  # nothing proves it: a shard to do
    advice = str(run.exception).splitlines()[1]
    assert "--overwrite" in advice or "again" in advice
    if "mmdata evaluate" in advice:
        evaluate(EvaluateConfig(dataset=dataset.url, head="kinds", baselines=False))
    elif "--overwrite" in advice:
        run_overwriting(dataset.url, path)
    else:
        for stage in make_again(path):
            run_stage(stage, dataset.url, str(made / "corpus"))
    assert verify(dataset).damaged == []
    Dataset.open(dataset.url)


def test_a_plan_that_is_lost_after_a_retry_is_made_again_with_overwrite_as_the_report_says(
    dataset: Dataset, made: Path, tmp_path: Path
) -> None:
    corpus = shutil.copytree(made / "corpus", tmp_path / "corpus")
    overwriting = shard_config(dataset.url, str(corpus), overwrite=True)
    shard(overwriting, HERE)  # from where the corpus is now
    (corpus / f"{BROKEN}.png").write_bytes(b"no picture either")
    retry(dataset, "shards", ())
    run_stage("shard", dataset.url, str(corpus))
    flip(dataset, "shards/plan.json", 40)
    (advice,) = verify(dataset, repair=True).repair
    assert "make all again with --overwrite" in advice
    shard(overwriting, HERE)
    assert [f for f in verify(dataset).damaged if f.path.startswith("shards/")] == []


def test_a_lost_card_is_not_replaced_by_that_of_another_encoder(dataset: Dataset) -> None:
    flip(dataset, "features/colours/encoder.json", 40)
    verify(dataset, repair=True)
    other = ExtractConfig(dataset=dataset.url, encoders=("colours=quick_encoder:Letters",))
    with pytest.raises(Conflict, match="encoder: there"):
        extract(other, HERE)


@pytest.mark.parametrize("path", ["shards/000001.json", "features/colours/encoder.json"])
def test_a_document_that_cannot_be_read_is_a_finding_and_is_not_taken_for_damaged(dataset: Dataset, path: str) -> None:
    file = Path(dataset.url, path)
    file.unlink()
    file.symlink_to("/proc/self/mem")  # opens, and fails to be read with EIO, as a broken disk does
    found = verify(dataset, repair=True)
    assert [finding.path for finding in found.damaged if finding.unread] == [path]
    assert file.is_symlink()
    assert "see that it can be read" in found.repair[0]


def reseal(dataset: Dataset, path: str, **facts: object) -> None:
    """As the maker of a dataset could write it: a document that fits its seal."""
    file = Path(dataset.url, path)
    file.write_bytes(seal(unseal(file.read_bytes(), path) | facts))


OUT = {"../../victim.txt": {"bytes": 6, "sha256": "0" * 64}}


@pytest.mark.parametrize(
    ("path", "facts"),
    [
        ("shards/000000.json", {"outputs": OUT}),
        ("shards/000000.json", {"shard": "../../victim.txt"}),
        ("shards/000000.json", {"shard": "000001"}),
        ("shards/000000.json", {"outputs": {"000001.tar": {"bytes": 1, "sha256": "0" * 64}}}),
        ("features/colours/receipts.json", {"files": {"../" + name: entry for name, entry in OUT.items()}}),
        ("heads/kinds/report.json", {"files": {"/victim.txt": {"bytes": 1, "sha256": "0" * 64}}}),
        ("indexes/pair.image/index.json", {"outputs": {"../" + name: entry for name, entry in OUT.items()}}),
    ],
)
def test_a_document_that_names_files_of_others_is_damage_and_a_repair_leaves_those_alone(
    dataset: Dataset, path: str, facts: dict[str, object]
) -> None:
    victim = Path(dataset.url).parent / "victim.txt"
    victim.write_text("victim")
    reseal(dataset, path, **facts)
    before = set(files(dataset))
    found = verify(dataset, repair=True)
    assert path in {finding.path for finding in found.damaged}
    assert victim.read_text() == "victim"
    assert before - set(files(dataset)) <= {path, path.replace("receipts.json", "receipts.parquet")}


def test_a_receipt_that_names_files_of_others_is_refused_by_every_reader(dataset: Dataset) -> None:
    reseal(dataset, "features/colours/000001.json", outputs={f"../{name}": entry for name, entry in OUT.items()})
    with pytest.raises(Damage, match=r"000001\.json is not a receipt: it names '\.\./\.\./\.\./victim\.txt'"):
        read_receipts(dataset.store, "features/colours")


def test_a_plan_and_a_label_name_their_own_files_only(dataset: Dataset) -> None:
    reseal(dataset, "shards/plan.json", table="../../victim.txt")
    with pytest.raises(Damage, match=r"plan\.json is not a plan: its table is '\.\./\.\./victim\.txt'"):
        read_plan(dataset)
    label = "indexes/pair.image/index.json"
    for facts in (
        {"generation": "../.."},
        {"name": "../.."},
        {"files": {"../a": {"bytes": 1, "sha256": "", "ends": ""}}},
    ):
        before = Path(dataset.url, label).read_bytes()
        reseal(dataset, label, **facts)
        with pytest.raises(Damage, match="does not describe an index"):
            read_facts(dataset, "pair.image")
        Path(dataset.url, label).write_bytes(before)


def test_gc_removes_what_nothing_names_and_nothing_else(dataset: Dataset) -> None:
    before = files(dataset)
    for path in ("shards/000009.tar", "shards/000001.tar#3", "indexes/pair.image/000007/parts/000001.faiss"):
        Path(dataset.url, path).parent.mkdir(parents=True, exist_ok=True)
        Path(dataset.url, path).write_bytes(b"left over")
    Path(dataset.url, "README.txt").write_text("of the user")
    assert (len(gc(dataset, 0, dry_run=True).removed), len(files(dataset))) == (3, len(before) + 4)
    swept = gc(dataset, 0, dry_run=False)
    assert (len(swept.removed), swept.bytes) == (3, 27)
    assert files(dataset) == sorted([*before, "README.txt"])
    assert not Path(dataset.url, "indexes/pair.image/000007").exists()


def test_gc_leaves_what_is_younger_than_asked_by_the_clock_of_the_store(dataset: Dataset) -> None:
    old, young = Path(dataset.url, "shards/000009.tar"), Path(dataset.url, "shards/000010.tar")
    for path in (old, young):
        path.write_bytes(b"left over")
    os.utime(old, (time.time() - 7200, time.time() - 7200))
    swept = gc(dataset, 3600, dry_run=False)
    assert (swept.removed, swept.kept) == (["shards/000009.tar"], 1)
    assert young.exists()


def test_gc_leaves_what_a_run_commits_while_it_sweeps(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    made = read_receipts(dataset.store, "shards")["000003"]
    place = Path(dataset.url, "shards")
    aside = (place / "000003.json").rename(place / "aside")  # as a run that was killed before its receipt
    data = {name.partition(".")[2]: (place / name).read_bytes() for name in made.outputs}
    for name in made.outputs:
        os.utime(place / name, (0, 0))
    aside.rename(Path(dataset.url, "aside"))
    delete = dataset.store.delete

    def committing(path: str) -> None:
        if path == "clock.probe":  # between the listing and the sweep
            commit(dataset.store, "shards", made, data)
        delete(path)

    monkeypatch.setattr(dataset.store, "delete", committing)
    assert gc(dataset, 3600, dry_run=False).removed == []
    monkeypatch.undo()
    assert verify(dataset).damaged == []


def test_gc_removes_nothing_from_a_dataset_with_a_damaged_document(dataset: Dataset) -> None:
    flip(dataset, "shards/000001.json", 40)
    before = files(dataset)
    with pytest.raises(Damage, match=r"000001\.json .* nothing was removed"):
        gc(dataset, 0, dry_run=False)
    assert files(dataset) == before


def test_gc_keeps_the_checkpoint_of_a_training_that_is_not_finished(dataset: Dataset) -> None:
    checkpoint, head = (Path(dataset.url, "heads/kinds", name) for name in ("checkpoint.safetensors", "head.json"))
    checkpoint.write_bytes(b"weights")
    head.rename(f"{dataset.url}/aside")
    assert "heads/kinds/checkpoint.safetensors" not in gc(dataset, 0, dry_run=True).removed
    Path(dataset.url, "aside").rename(head)
    assert gc(dataset, 0, dry_run=False).removed == ["heads/kinds/checkpoint.safetensors"]


def test_the_logs_of_a_training_are_proven_by_its_head(dataset: Dataset) -> None:
    train_head(train_config(dataset.url, overwrite=True, trackers=("tensorboard",)))
    (log,) = [path for path in files(dataset) if "/events/" in path]
    assert log not in verify(dataset).loose
    flip(dataset, log, 30)
    assert [finding.path for finding in verify(dataset).damaged] == [log]
    Path(dataset.url, "heads/kinds/head.json").unlink()  # as if it were not finished
    assert log not in gc(dataset, 0, dry_run=True).removed


def test_status_has_every_stage_with_rows_rejects_rate_and_what_is_left(dataset: Dataset) -> None:
    rows = {row["what"]: row for row in status(dataset)}
    assert list(rows) == [
        "shards",
        *(f"features {name}" for name in ("colours", "kinds.fused", "letters", "pair.image", "pair.text")),
        "predictions kinds",
        "head kinds of colours, letters",
        "head pair of letters, colours",
        "index pair.image",
    ]
    assert rows["shards"]["rejected"] == {"decode_failed": 1} or rows["shards"]["rejected"] == {"unsupported": 1}
    assert (rows["shards"]["rows in"], rows["shards"]["rows out"]) == (SAMPLES, SAMPLES - 1)
    assert {row["left"] for row in rows.values()} == {0}
    assert all(row["rows/s"] > 0 for name, row in rows.items() if "head" not in name)
    for path in ("features/colours/000001.json", "predictions/kinds/000001.json"):
        Path(dataset.url, path).unlink()
    left = {row["what"]: row["left"] for row in status(dataset) if row["left"]}
    assert left == {"features colours": 1, "predictions kinds": 1}
    assert BROKEN not in str(rows)


def test_receipts_of_every_stage_account_for_every_row(dataset: Dataset) -> None:
    for folder in ("shards", "features/colours", "features/pair.image", "predictions/kinds"):
        receipts = read_receipts(dataset.store, folder).values()
        assert len(receipts) == SHARDS
        assert all(r.rows_in == r.rows_out + sum(r.rejected.values()) for r in receipts)


def test_a_sealed_document_is_read_back_and_any_edit_is_damage() -> None:
    facts = {"a": 1, "b": [1.5, None, "ü"], "c": {"d": True}}
    data = seal(facts)
    assert unseal(data, "x.json") == facts
    for place in range(len(data)):
        with pytest.raises(Damage, match=r"x\.json"):
            unseal(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :], "x.json")
    with pytest.raises(Damage, match="has no seal"):
        unseal(b'{"a": 1}', "x.json")
    with pytest.raises(Damage):
        unseal(data + b"\n", "x.json")
