"""A classifier that writes to the space of a text encoder."""

from collections.abc import Iterator
from pathlib import Path

import libraries
import numpy as np
import pytest
import torch

from mmdata.encoders import describe, encode_one, load_encoder
from mmdata.encoders.starters import EFFICIENTNET
from mmdata.encoders.weights import packaged
from mmdata.encoders.words import TEMPERATURE, class_names

NEAR = 1e-4  # float32 in another order
SAME = 0.9999  # pictures are resized by torch here and by PIL there
PICTURE = np.random.default_rng(0).integers(0, 255, (9, 9, 3), np.uint8).repeat(30, 0).repeat(30, 1)


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("MMDATA_CACHE", str(folder))
        yield folder


def test_a_picture_is_the_names_of_what_it_shows_beside_its_own_vector(cache: Path) -> None:
    found = encode_one(load_encoder(describe("efficientnet-lite0-words")), PICTURE)[0]
    (names,) = (np.load(file) for file in (cache / "names").iterdir())
    text = load_encoder(describe("minilm"))
    for place in (0, 285, 999):
        assert names[place] == pytest.approx(encode_one(text, f"A {class_names()[place]}.")[0], abs=NEAR)
    file = packaged(*EFFICIENTNET)
    own = libraries.efficientnet(file, PICTURE)
    *_, weight, bias = torch.load(file, weights_only=True).values()
    named = ((own @ weight.T + bias) / TEMPERATURE).softmax(0).detach().numpy() @ names
    assert cosine(found[:1280], own.detach().numpy()) > SAME
    assert cosine(found[1280:], named) > SAME
    assert np.linalg.norm(found[1280:]) == pytest.approx(1, abs=NEAR)


def test_its_words_are_in_the_space_of_the_text_encoder() -> None:
    words, text, both = (describe(spec) for spec in ("efficientnet-words", "minilm", "efficientnet-lite0-words"))
    assert (words.space, words.dim, words.normalised) == (text.space, 384, True)
    assert words.towers == {"image": "efficientnet-words", "text": "minilm"}
    assert both.space not in (text.space, describe("efficientnet-lite0").space)
    assert both.preprocessing["holds"] == {text.space: [1280, 1664]}


def test_the_classes_are_those_of_imagenet_in_their_order() -> None:
    assert len(class_names()) == 1000
    assert [class_names()[place] for place in (0, 285, 999)] == ["tench", "Egyptian cat", "toilet tissue"]


def test_names_are_encoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMDATA_CACHE", str(tmp_path))
    facts = describe("efficientnet-words").preprocessing
    names = np.eye(1000, 384, dtype=np.float32)
    (tmp_path / "names").mkdir()
    np.save(tmp_path / "names" / f"{facts['names'][:16]}.{facts['text'][:16]}.npy", names)
    found = encode_one(load_encoder(describe("efficientnet-words")), PICTURE)[0]
    assert found.min() >= 0  # shares of the first 384 classes
