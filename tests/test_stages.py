"""What every stage over shards has in common: outcomes, errors, the reject rate, the summary."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mmdata.cluster import Resources, Task
from mmdata.config import EndToEndConfig, ExtractConfig, IndexConfig, ShardConfig
from mmdata.errors import Conflict, Damage, MMDataError, ModelError, StorageFull, TooManyRejects, WorkerDied
from mmdata.stages import Clock, Job, Summary, resources_of, run_job
from mmdata.stages.ahead import ordered_map
from mmdata.stages.extract import extract
from mmdata.stages.shard import shard
from mmdata.storage.dataset import Dataset
from mmdata.types import Receipt

HERE = Resources(workers=0)


def receipt(shard: str, rows: int = 10, **rejected: int) -> Receipt:
    out = rows - sum(rejected.values())
    return Receipt("extract", shard, "f", {}, {}, rows, out, 0, rejected, {"too_long": 1}, {"read": 0.5})


def job(outcomes: dict[str, object], done: tuple[Receipt, ...] = (), total: int = 100) -> Job:
    """Every shard of `outcomes` gives its receipt, or raises its error."""

    def work(state: object, task: Task) -> list[Receipt]:
        name = task.shard
        found = outcomes[name]
        if isinstance(found, Exception):
            raise found
        return [found]  # type: ignore[list-item]

    return Job(
        "extract", "data", "data", lambda: None, work, lambda shard: [], list(outcomes), done, total, "what is next"
    )


def end(job: Job, rate: float = 0.05) -> tuple[MMDataError, list[tuple[int, int, int]]]:
    """The error that ends a run, and what its watch saw."""
    seen: list[tuple[int, int, int]] = []
    with pytest.raises(MMDataError) as caught:
        run_job(job, HERE, rate, lambda stage, done, total, rows: seen.append((done, total, rows)))
    return caught.value, seen


def test_a_summary_adds_up_what_was_there_and_what_is_new() -> None:
    seen: list[tuple[str, int, int, int]] = []
    work = job({"000001": receipt("000001", empty=2), "000002": receipt("000002")}, done=(receipt("000000", oom=1),))
    summary = run_job(work, HERE, 0.1, lambda *what: seen.append(what))
    assert isinstance(summary, Summary)
    assert (summary.shards, summary.shards_before) == (3, 1)
    assert (summary.rows_in, summary.rows_out, summary.rows_now) == (30, 27, 18)
    assert (summary.rejected, summary.repaired) == ({"empty": 2, "oom": 1}, {"too_long": 3})
    assert summary.phases == {"read": 1.0, "start": 0.0, "end": 0.0}  # of this run
    assert [(stage, done, total) for stage, done, total, _ in seen] == [("extract", n, 3) for n in (1, 2, 3)]
    assert (seen[0][3], seen[-1][3]) == (0, 18)


def test_a_shard_that_fails_stops_no_other_and_is_told_at_the_end() -> None:
    error, seen = end(job({"000000": Damage("bad bytes"), "000001": receipt("000001"), "000002": receipt("000002")}))
    assert type(error) is Damage
    assert str(error) == (
        "1 of 3 shards failed and the others are finished; the first, 000000: Damage: bad bytes\n"
        "mmdata verify DATASET --repair takes back what is damaged; "
        "make that again (shards: mmdata shard SOURCE DATASET), then run this command again"
    )
    assert seen[-1] == (3, 3, 20)
    full, _ = end(job({"000000": MemoryError("no memory")}))
    assert str(full).endswith("000000: MemoryError: no memory\nrun the same command again to do only what is left")


def test_a_bug_in_a_shard_is_exit_code_1_a_dead_worker_is_4_and_a_model_is_5() -> None:
    bug, _ = end(job({"000000": KeyError("x")}))
    assert (bug.exit_code, "000000: KeyError: 'x'" in str(bug)) == (1, True)
    dead, _ = end(job({"000001": WorkerDied("killed 3 workers")}, done=(receipt("000000"),)))
    assert (dead.exit_code, str(dead).endswith("run the same command again to do only what is left")) == (4, True)
    model, _ = end(job({"000000": ModelError("no such layer")}))
    assert model.exit_code == 5


def test_where_the_first_shard_that_ends_has_killed_its_workers_the_others_are_not_tried() -> None:
    error, seen = end(job({f"{n:06d}": WorkerDied("killed 3 workers") for n in range(9)}))
    assert (type(error), str(error)) == (WorkerDied, "killed 3 workers\nrun the same command again to go on")
    assert seen == [(0, 9, 0)]


@pytest.mark.parametrize("fatal", [StorageFull("no space left"), Conflict("another encoder")])
def test_an_error_that_every_shard_would_meet_ends_the_run_at_once(fatal: MMDataError) -> None:
    started: list[str] = []
    release = threading.Event()

    def work(state: object, task: Task) -> list[Receipt]:
        name = task.shard
        started.append(name)
        if name == "000000":
            raise fatal
        release.wait(0.2)
        return [receipt(name)]

    names = [f"{n:06d}" for n in range(20)]
    with pytest.raises(type(fatal)) as caught:
        run_job(
            Job("extract", "data", "data", lambda: None, work, lambda shard: [], names, (), 200, ""),
            HERE,
            0.05,
            lambda *_: None,
        )
    assert caught.value is fatal
    assert set(started) < set(names[:6])


def test_too_many_rejects_end_the_run_as_soon_as_the_rate_is_bound_to_be_above() -> None:
    error, seen = end(job({f"{n:06d}": receipt(f"{n:06d}", decode_failed=3) for n in range(10)}))
    assert type(error) is TooManyRejects
    assert error.exit_code == 3
    assert str(error) == (
        "6 of 100 samples are left out, more than --max-reject-rate 0.05 allows: 6 decode_failed\n"
        "see which: mmdata rejects data"
    )
    assert seen[-1] == (2, 10, 14)


def test_rejects_of_an_earlier_run_count_and_a_rate_that_is_met_is_allowed() -> None:
    earlier = (receipt("000000", decode_failed=5),)
    assert run_job(job({"000001": receipt("000001")}, earlier), HERE, 0.25, lambda *_: None).rows_out == 15
    error, _ = end(job({"000001": receipt("000001", empty=1)}, earlier), 0.25)
    assert "5 decode_failed, 1 empty" in str(error)


def test_ordered_map_keeps_the_order_and_reads_no_further_than_it_may() -> None:
    read: list[int] = []

    def items():
        for n in range(20):
            read.append(n)
            yield n

    with ThreadPoolExecutor(4) as pool:
        results = ordered_map(pool, lambda n: n * n, items(), ahead=4, budget=3, size=lambda _: 1)
        assert next(results) == 0
        assert len(read) <= 1 + 3 + 4 + 1  # taken, waiting, in work, and the one in hand
        assert list(results) == [n * n for n in range(1, 20)]


def test_ordered_map_passes_errors_on_in_their_turn() -> None:
    with ThreadPoolExecutor(2) as pool:
        results = ordered_map(pool, lambda n: 6 // n, [3, 0, 2], ahead=3, budget=3, size=lambda _: 1)
        assert next(results) == 2
        with pytest.raises(ZeroDivisionError):
            next(results)


def test_ordered_map_passes_on_what_is_no_exception() -> None:
    def items():
        yield 1
        raise SystemExit(3)

    with ThreadPoolExecutor(2) as pool:
        results = ordered_map(pool, lambda n: n, items(), ahead=3, budget=3, size=lambda _: 1)
        assert next(results) == 1
        with pytest.raises(SystemExit):
            next(results)


def test_a_clock_adds_the_times_of_all_threads() -> None:
    clock = Clock()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: clock.add("read", clock.add("decode", 0.0) - 1.0), range(100)))
    assert clock.seconds["read"] >= 100.0
    assert set(clock.seconds) == {"read", "decode"}


def test_resources_come_from_the_config_and_stages_without_workers_run_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    given = ExtractConfig(dataset="d", encoders=("minilm",), workers=3, cpus_per_worker=2, gpus_per_worker=0.5)
    assert resources_of(given) == Resources(3, 2.0, 0.5, None)
    assert resources_of(IndexConfig(dataset="d", features="f")).workers == 0
    assert resources_of(ShardConfig(dataset="d", source="s", gpus_per_worker=0, ray_address="auto")) == Resources(
        None, 1.0, 0.0, "auto"
    )


def test_shared_keys_reach_every_stage() -> None:
    job = EndToEndConfig(dataset="d", workers=2, shard={"source": "s"}, extract={"encoders": ["a"], "workers": 0})
    assert (job.shard, job.extract.workers) == (ShardConfig(dataset="d", workers=2, source="s"), 0)


@pytest.mark.parametrize("workers", [0, 2])
def test_any_number_of_workers_makes_the_same_bytes(
    workers: int, corpus: Path, tmp_path: Path, local_ray: None
) -> None:
    made = []
    for number, resources in enumerate([HERE, Resources(workers=workers)]):
        url = str(tmp_path / f"dataset-{number}")
        shard(ShardConfig(dataset=url, source=str(corpus), samples_per_shard=20), resources)
        extract(ExtractConfig(dataset=url, encoders=("mel-stats",)), resources)
        store = Dataset.open(url).store
        names = [i.path for i in store.list() if i.path.endswith((".tar", ".parquet")) and "receipts" not in i.path]
        made.append({name: store.read(name) for name in names})
    assert sorted(made[0])[:2] == ["features/mel-stats/000000.parquet", "features/mel-stats/000001.parquet"]
    assert made[0] == made[1]
