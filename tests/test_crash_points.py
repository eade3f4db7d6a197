"""kill -9 at every point of every stage, then the same command: the same rows, nothing twice, nothing left over."""

import ast
import shutil
import signal
from collections import Counter
from pathlib import Path

import pytest
from crashing import content, files, receipts, run_stage_apart, undisturbed
from small_job import SAMPLES, STAGES, write_corpus

import mmdata
from mmdata.crash import POINTS
from mmdata.stages.verify import gc, verify
from mmdata.storage.dataset import Dataset

OFTEN = ("align", "project", "predict")  # stages whose storage is that of the others
CASES = [
    pytest.param(stage, name, marks=pytest.mark.slow if stage in OFTEN and name.startswith("store.") else ())
    for name, stages in POINTS.items()
    for stage in stages
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shards: the first, one between, and the last."""
    return write_corpus(tmp_path_factory.mktemp("killed") / "corpus", SAMPLES // 2)


@pytest.fixture(scope="module")
def before(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """For each stage, and after the last, the dataset as an undisturbed run has it before that stage."""
    found, passed = undisturbed(tmp_path_factory.mktemp("before"), corpus)
    _passed.update(passed)
    return found


_passed: dict[str, Counter[str]] = {}


def after(before: dict[str, Path], stage: str) -> Path:
    names = [*STAGES, "end"]
    return before[names[names.index(stage) + 1]]


def test_every_point_in_the_source_is_in_the_table_and_every_point_of_the_table_in_the_source() -> None:
    named = set()
    for path in Path(mmdata.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("point", "tear"):
                assert isinstance(node.args[0], ast.Constant), f"{path}: a point has a name that can be looked up"
                named.add(node.args[0].value)
    assert named == set(POINTS)


def test_every_stage_passes_the_points_that_the_table_says(before: dict[str, Path]) -> None:
    for stage in STAGES:
        assert set(_passed[stage]) == {name for name, stages in POINTS.items() if stage in stages}, stage


def check(stage: str, crash: str, before: dict[str, Path], corpus: Path, folder: Path, workers: int = 0) -> None:
    dataset = folder / "dataset"
    if before[stage].exists():
        shutil.copytree(before[stage], dataset)
    killed = run_stage_apart(stage, dataset, corpus, crash, workers)
    assert killed.fired, f"{crash} was never reached: {killed.said}"
    if workers:
        assert killed.code == 0, killed.said  # the run goes on without the worker
    else:
        assert killed.code in (-signal.SIGKILL, -signal.SIGXFSZ), (killed.code, killed.said)
    made = receipts(dataset)
    again = run_stage_apart(stage, dataset, corpus)
    assert again.code == 0, again.said
    assert {name: time for name, time in receipts(dataset).items() if name in made} == made  # none was made again
    gc(Dataset.open(str(dataset)), 0, dry_run=False)
    undisturbed = after(before, stage)
    assert sorted(files(dataset)) == sorted(_renumbered(undisturbed, dataset)), crash
    assert _same(content(dataset), content(undisturbed)) == []
    assert verify(Dataset.open(str(dataset))).damaged == []


def _renumbered(undisturbed: Path, dataset: Path) -> list[str]:
    """The files that should be there; the generation of an index has the number after those that were killed."""
    numbers = {path.parent.name for name, path in files(dataset).items() if "indexes/" in name} - {"pair.image"}
    number = f"/{min(numbers, default='000001')}/"
    return [name.replace("/000001/", number) if "indexes/" in name else name for name in files(undisturbed)]


def _same(found: dict[str, object], whole: dict[str, object]) -> list[str]:
    """Names of the files that differ, but for labels of generations, which name their folder, and summaries."""
    skip = ("index.json", "receipts.json")
    return [n for n in whole if n in found and not n.endswith(skip) and found[n] != whole[n]]


@pytest.mark.parametrize(("stage", "name"), CASES, ids=lambda value: value)
def test_a_run_that_is_killed_at_a_point_is_finished_by_the_same_command(
    stage: str, name: str, before: dict[str, Path], corpus: Path, tmp_path: Path
) -> None:
    times = _passed[stage][name]
    check(stage, f"{name}:{(times + 1) // 2}", before, corpus, tmp_path)


EVERY = [(stage, name) for name, stages in POINTS.items() for stage in stages if name.startswith(("store.", "rec"))]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("stage", "name"), EVERY, ids=lambda value: value)
def test_a_run_that_is_killed_at_any_operation_of_the_storage_is_finished_by_the_same_command(
    stage: str, name: str, before: dict[str, Path], corpus: Path, tmp_path: Path
) -> None:
    for time in range(1, _passed[stage][name] + 1):
        check(stage, f"{name}:{time}", before, corpus, tmp_path / str(time))


def test_an_order_may_end_with_a_line_and_one_that_names_no_point_is_refused(corpus: Path, tmp_path: Path) -> None:
    killed = run_stage_apart("shard", tmp_path / "one", corpus, "plan.written:1\n")
    assert (killed.fired, killed.code) == (True, -signal.SIGKILL)
    refused = run_stage_apart("shard", tmp_path / "two", corpus, "plan.writen:1")
    assert not refused.fired
    assert refused.code > 0
    assert "asks for 'plan.writen:1', which is no point" in refused.said
