"""What building an index takes: the index itself and a shard, however many shards there are."""

import subprocess
import sys
from pathlib import Path

import pytest
from made_features import clusters, write_features

from mmdata.storage.dataset import Dataset

SHARD, DIM = 10_000, 64
FEW, MANY = 5, 25  # shards
BUDGET = 150_000_000  # bytes; the vectors of MANY shards take 64 MB
SLACK = 16_000_000  # of what an allocator keeps
BUILD = """
import resource, sys
from mmdata.cluster import Resources
from mmdata.config import IndexConfig
from mmdata.stages.index import index

def build(url, kind):
    asked = IndexConfig(dataset=url, features="f", kind=kind, memory=int(sys.argv[4]), min_recall=0.1)
    index(asked, Resources(workers=0))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

before = build(sys.argv[1], sys.argv[3])
print(build(sys.argv[2], sys.argv[3]) - before)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Datasets of one shard, of a few and of many."""
    folder = tmp_path_factory.mktemp("memory")
    for name, shards in {"one": 1, "few": FEW, "many": MANY}.items():
        write_features(
            Dataset.create(str(folder / name)), "f", [clusters(SHARD, DIM, seed=seed) for seed in range(shards)]
        )
    return folder


def peak(folder: Path, name: str, kind: str) -> tuple[int, int]:
    """Bytes of a build beyond those of one of a single shard in the same process, and bytes of the index."""
    run = [sys.executable, "-c", BUILD, str(folder / "one"), str(folder / name), kind, str(BUDGET)]
    done = subprocess.run(run, check=True, capture_output=True, text=True)
    files = (folder / name / "indexes/f/000001").glob("*.faiss")
    return int(done.stdout.split()[-1]), sum(path.stat().st_size for path in files)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["flat", "ivf-flat", "ivf-pq"])
def test_a_build_stays_within_the_memory_and_grows_only_by_the_index(folder: Path, kind: str) -> None:
    few, few_bytes = peak(folder, "few", kind)
    many, many_bytes = peak(folder, "many", kind)
    assert many <= BUDGET
    assert many - few <= 1.5 * (many_bytes - few_bytes) + SLACK  # inverted lists grow one by one, by doubling
