"""An encoder of a user's own: by an entry point, by MODULE:CLASS, on Ray, and held to the importable contract."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from odd_encoder import OddEncoder
from PIL import Image

from mmdata.encoders import Prepared, Request, describe, load_encoder
from mmdata.errors import ConfigError, ModelError
from mmdata.storage.dataset import Dataset
from mmdata.storage.features import Features, vectors
from mmdata.testing import check_encoder
from mmdata.types import EncoderCard, Modality

ROOT = Path(__file__).parent.parent
TEXTS = ["a red star", "two", "the ring on the left"]


def mmdata(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from mmdata.cli import main; main()", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )


def test_an_entry_point_makes_a_family_that_is_listed_and_described() -> None:
    card = describe("odd:plain")
    assert (card.name, card.spec, card.space, card.towers) == ("odd-plain", "odd:plain", "odd", {"text": "odd:plain"})
    assert (card.dtype, card.precision, card.windows, card.tokens) == ("float16", "fp32", "", 0)
    check_encoder(load_encoder(card), TEXTS)


def test_a_class_is_found_by_module_and_name_and_its_space_is_its_own() -> None:
    card = describe("odd_encoder:OddEncoder:zero")
    assert isinstance(load_encoder(card), OddEncoder)
    assert (card.name, card.dim) == ("odd_encoder-zero", 3)
    with pytest.raises(ConfigError, match="odd:plain has no token vectors"):
        describe("odd:plain", Request(tokens=3))


def test_the_class_of_the_readme_works_from_the_folder_one_is_in_and_on_ray(sharded: Dataset, tmp_path: Path) -> None:
    [code] = re.findall(
        r"^```python\n(# colours\.py\n.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE
    )
    (tmp_path / "colours.py").write_text(code)
    Image.new("RGB", (9, 9), "red").save(tmp_path / "red.png")
    done = mmdata(tmp_path, "extract", sharded.url, "--encoder", "colours=colours:Colours", "--workers", "1", "--json")
    assert (done.returncode, json.loads(done.stdout)["rows_out"]) == (0, 60), done.stderr
    found = Features(sharded, "colours").to_arrow()
    assert vectors(found).shape == (60, 6)
    assert mmdata(tmp_path, "index", sharded.url, "--features", "colours").returncode == 0
    picture = tmp_path / "red.png"
    refused = mmdata(tmp_path, "search", sharded.url, "--image", str(picture))
    assert refused.returncode == 2
    assert (
        "which data may not start; ask with a vector, or, if you trust it: mmdata search --encoder colours:Colours"
        in refused.stderr
    )
    trusted = mmdata(tmp_path, "search", sharded.url, "--image", str(picture), "--encoder", "colours:Colours", "--json")
    assert len(json.loads(trusted.stdout)[0]["hits"][0]) == 10
    key = found["key"][7].as_py()
    hits = json.loads(mmdata(tmp_path, "search", sharded.url, "--key", key, "-k", "2", "--json").stdout)
    assert hits[0]["hits"][0][0]["key"] == key


class Plain:
    """The length of a text and a one: the smallest encoder there is."""

    batch_size = 2

    def __init__(self) -> None:
        text = Modality.TEXT
        self.card = EncoderCard(
            modality=text, dim=2, spec="plain", space="plain", precision="fp32", towers={"text": ""}
        )

    def prepare(self, value):
        return [Prepared(len(value))]

    def encode(self, batch):
        return np.array([(n, 1) for n in batch], np.float32).reshape(-1, 2)


class FailsOnNone(Plain):
    def encode(self, batch):
        return np.array([(n, 1) for n in batch], np.float32)


class GivesDoubles(Plain):
    def encode(self, batch):
        return super().encode(batch).astype(np.float64)


class SeesTheLongest(Plain):
    def encode(self, batch):
        return super().encode(batch) + np.array([[0, max([*batch, 0])]], np.float32)


class IsConstant(Plain):
    def encode(self, batch):
        return np.ones((len(batch), 2), np.float32)


class CountsCalls(Plain):
    calls = 0

    def encode(self, batch):
        self.calls += 1
        return super().encode(batch) * self.calls


class IsNotFinite(Plain):
    def encode(self, batch):
        return super().encode(batch) * np.nan


class PreparesNothing(Plain):
    def prepare(self, value):
        return []


class PreparesBareNumbers(Plain):
    def prepare(self, value):
        return [len(value)]


class SaysItNormalises(Plain):
    def __init__(self) -> None:
        super().__init__()
        object.__setattr__(self.card, "normalised", True)


class PromisesTokens(Plain):
    def __init__(self) -> None:
        super().__init__()
        object.__setattr__(self.card, "tokens", 4)


BROKEN: dict[Callable[[], Plain], str] = {
    FailsOnNone: r"0 inputs give \(0, 2\), not \(0,\)",
    GivesDoubles: "encode gives a numpy array of float32",
    SeesTheLongest: "an input alone has the same vector to 1e-05",
    IsConstant: "different values have different vectors",
    CountsCalls: "has the same vector to 1e-05",
    IsNotFinite: "every number of a vector is finite",
    PreparesNothing: "prepare gives one Prepared at least",
    PreparesBareNumbers: "prepare gives a sequence of Prepared",
    SaysItNormalises: "a card that says normalised gives unit vectors",
    PromisesTokens: "a card with tokens is of an encoder with encode_tokens",
}


def test_the_smallest_encoder_keeps_the_contract() -> None:
    check_encoder(Plain(), TEXTS, [(10, 1), (3, 1), (20, 1)])


@pytest.mark.parametrize("broken", BROKEN)
def test_the_contract_names_what_a_broken_encoder_breaks(broken: Callable[[], Plain]) -> None:
    with pytest.raises(AssertionError, match=BROKEN[broken]):
        check_encoder(broken(), TEXTS)


WRONG_LIBRARY = {
    "the cosine with the library's vectors is 0.9999 at least": [(10, 1), (3, 2), (20, 1)],
    "a vector is as long as the library's": [(20, 2), (6, 2), (40, 2)],
    r"the library's shape is \(3, 1\), not \(3, 2\)": [(10,), (3,), (20,)],
}


@pytest.mark.parametrize("claim", WRONG_LIBRARY)
def test_vectors_that_are_not_the_library_s_are_told_apart(claim: str) -> None:
    with pytest.raises(AssertionError, match=claim):
        check_encoder(Plain(), TEXTS, WRONG_LIBRARY[claim])


def test_one_value_is_too_few_to_check_an_encoder() -> None:
    with pytest.raises(ValueError, match="two values at least are needed, not 1"):
        check_encoder(Plain(), TEXTS[:1])


def test_a_package_that_is_missing_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    from mmdata.encoders import families

    def version(package: str) -> str:
        raise metadata.PackageNotFoundError(package)

    monkeypatch.setattr(families, "version", version)
    with pytest.raises(ModelError, match="needs what is not installed: pip install open_clip_torch"):
        describe("open_clip:ViT-B-32/openai#text")
