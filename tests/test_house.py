"""The rules of the house that no linter knows."""

import subprocess
import sys
from pathlib import Path

import pytest

import mmdata

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "ray", "faiss", "transformers", "pyarrow", "torchaudio", "timm", "pydantic", "numpy")


@pytest.mark.parametrize("code", ["import mmdata", "import mmdata.cli", "from mmdata.cli import build, look"])
def test_importing_the_command_line_imports_nothing_heavy(code: str) -> None:
    listing = f"{code}\nimport sys\nprint([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", listing], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", mmdata.__all__)
def test_every_public_name_can_be_imported_and_is_documented(name: str) -> None:
    assert getattr(mmdata, name).__doc__


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = mmdata.nothing


def test_ray_is_imported_by_the_cluster_package_alone() -> None:
    importers = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "mmdata").rglob("*.py")
        if any(line.strip().startswith(("import ray", "from ray")) for line in path.read_text().splitlines())
    }
    assert {Path(name).parent.as_posix() for name in importers} == {"mmdata/cluster"}


def test_no_committed_file_is_a_weight_or_larger_than_a_picture() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    large = [name for name in tracked if (ROOT / name).exists() and (ROOT / name).stat().st_size > 200_000]
    assert large == []


def test_no_parquet_is_read_in_threads_of_arrow() -> None:
    """They may outlive the interpreter, which aborts the process at its end."""
    sources = Path(mmdata.__file__).parent.rglob("*.py")
    assert [path.name for path in sources if "read_table(" in path.read_text()] == []
