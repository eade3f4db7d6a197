"""A disk that is full or cannot be written, at every stage: exit code 4, and the same command goes on afterwards."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from crashing import Ended, content, files, run_stage_apart, undisturbed
from small_job import STAGES, write_corpus

from mmdata.errors import NotFound
from mmdata.stages.verify import gc, verify
from mmdata.storage.dataset import Dataset

pytestmark = pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mount"), reason="mounts a small disk")
SIZE = 1 << 20


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("starved") / "corpus")


@pytest.fixture(scope="module")
def before(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The dataset before each stage, and at the end."""
    found, _ = undisturbed(tmp_path_factory.mktemp("before"), corpus)
    found[next(iter(STAGES))].mkdir()
    return found


def mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount: {done.stderr.strip()}")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    folder = tmp_path / "dataset"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder))
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(disk: Path, leave: int) -> Path:
    """Take all room but `leave` bytes."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            pass
        file.truncate(max(0, file.tell() - leave))
    return filler


def check_after(stage: str, ended: Ended, disk: Path, corpus: Path, before: dict[str, Path], said: str) -> None:
    assert ended.code == 4, ended.said
    assert said in ended.said
    try:
        assert verify(Dataset.open(str(disk))).damaged == []
    except NotFound:
        assert stage == "shard"


def finish(stage: str, disk: Path, corpus: Path, before: dict[str, Path]) -> None:
    again = run_stage_apart(stage, disk, corpus)
    assert again.code == 0, again.said
    gc(Dataset.open(str(disk)), 0, dry_run=False)
    names = [*STAGES, "end"]
    whole = before[names[names.index(stage) + 1]]
    if stage != "index":  # whose generation has another number
        assert sorted(files(disk)) == sorted(files(whole))
        assert [n for n, facts in content(whole).items() if content(disk)[n] != facts and "receipts" not in n] == []
    assert verify(Dataset.open(str(disk))).damaged == []


@pytest.mark.parametrize("leave", [0, 12 << 10], ids=["at once", "in the middle"])
@pytest.mark.parametrize("stage", STAGES)
def test_a_full_disk_ends_a_stage_with_four_and_the_same_command_finishes_it(
    stage: str, leave: int, disk: Path, corpus: Path, before: dict[str, Path]
) -> None:
    shutil.copytree(before[stage], disk, dirs_exist_ok=True)
    filler = fill(disk, leave)
    ended = run_stage_apart(stage, disk, corpus)
    filler.unlink()
    check_after(stage, ended, disk, corpus, before, "no space left to write")
    finish(stage, disk, corpus, before)


@pytest.mark.parametrize("stage", STAGES)
def test_a_disk_that_cannot_be_written_ends_a_stage_with_four_and_names_the_file(
    stage: str, disk: Path, corpus: Path, before: dict[str, Path]
) -> None:
    shutil.copytree(before[stage], disk, dirs_exist_ok=True)
    mount("-o", "remount,ro", str(disk))
    ended = run_stage_apart(stage, disk, corpus)
    assert sorted(files(disk)) == sorted(files(before[stage]))
    mount("-o", "remount,rw", str(disk))
    check_after(stage, ended, disk, corpus, before, f"cannot access {disk}/")
    finish(stage, disk, corpus, before)
