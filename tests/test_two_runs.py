"""Two runs that start at once on one dataset."""

import subprocess
from pathlib import Path

import pytest
from test_kill import SECONDS, SHARDS, cluster, command, content, receipts, undisturbed

__all__ = ["cluster", "undisturbed"]  # fixtures


def both(corpus: Path, dataset: Path, workers: int) -> list[str]:
    """Run the job twice at once; what they said."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    runs = [subprocess.Popen(command(corpus, dataset, workers), **options) for _ in range(2)]
    said = [run.communicate(timeout=SECONDS) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], said
    return [out for out, _ in said]


def test_two_runs_at_once_make_one_dataset(corpus: Path, tmp_path: Path, undisturbed: dict[str, object]) -> None:
    said = both(corpus, tmp_path / "dataset", 0)
    assert content(tmp_path / "dataset") == undisturbed
    assert len(receipts(tmp_path / "dataset")) == 2 * SHARDS
    for out in said:  # each knows of every row, whoever did it
        assert "shard: 60 of 60 rows in 10 shards" in out
        assert "extract: 60 of 60 rows in 10 shards" in out


@pytest.mark.slow
def test_two_runs_at_once_on_one_cluster_make_one_dataset(
    corpus: Path, tmp_path: Path, undisturbed: dict[str, object], cluster: None
) -> None:
    both(corpus, tmp_path / "dataset", 1)
    assert content(tmp_path / "dataset") == undisturbed
