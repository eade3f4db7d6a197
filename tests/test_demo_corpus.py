"""The corpus of the demo: the same every time, complete, and with things in it that can be told apart."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import HERE

from mmdata.config import ShardConfig
from mmdata.demo import COLOURS, PLACES, RATE, SECONDS, SHAPES, SIDE, TEXTURES, write_corpus
from mmdata.errors import Conflict
from mmdata.media import decode
from mmdata.stages.shard import shard
from mmdata.types import Modality


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    write_corpus(folder, 80)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(drawn: Path, tmp_path: Path) -> None:
    write_corpus(tmp_path / "again", 80)
    write_corpus(tmp_path / "other", 80, seed=1)
    assert contents(tmp_path / "again") == contents(drawn)
    assert contents(tmp_path / "other") != contents(drawn)


def test_a_smaller_corpus_is_the_beginning_of_a_larger_one(drawn: Path, tmp_path: Path) -> None:
    write_corpus(tmp_path, 10)
    whole = contents(drawn)
    assert contents(tmp_path).items() <= whole.items()


def test_every_sample_has_a_picture_a_sentence_a_sound_and_metadata(drawn: Path) -> None:
    suffixes = Counter(Path(name).suffix for name in contents(drawn))
    assert suffixes == {".png": 80, ".txt": 80, ".wav": 80, ".json": 80}
    assert {path.name for path in drawn.iterdir()} == set(SHAPES)


def test_everything_decodes_to_the_declared_size(drawn: Path) -> None:
    for path in drawn.rglob("*.png"):
        assert decode(Modality.IMAGE, path.read_bytes()).value.shape == (SIDE, SIDE, 3)
    for path in drawn.rglob("*.wav"):
        wave = decode(Modality.AUDIO, path.read_bytes()).value
        assert wave.rate == RATE
        assert abs(len(wave.samples) / RATE - SECONDS) < 0.001  # seconds; four notes do not fill it to the sample
        assert 0.01 < np.sqrt(np.mean(wave.samples**2)) < 0.7


def test_a_sentence_names_what_is_drawn(drawn: Path) -> None:
    for path in drawn.rglob("*.txt"):
        sentence, facts = path.read_text(), json.loads(path.with_suffix(".json").read_text())
        assert any(word in sentence for word in COLOURS[facts["colour"]][1])
        assert any(word in sentence for word in SHAPES[path.parent.name])
        assert any(word in sentence for words in TEXTURES.values() for word in words)
        assert any(word in sentence for _, words in PLACES.values() for word in words)


def test_the_colour_of_the_metadata_is_in_the_picture(drawn: Path) -> None:
    for path in drawn.rglob("*.png"):
        colour = COLOURS[json.loads(path.with_suffix(".json").read_text())["colour"]][0]
        wanted = [int(colour[start : start + 2], 16) for start in (1, 3, 5)]
        pixels = decode(Modality.IMAGE, path.read_bytes()).value
        assert (pixels == wanted).all(axis=2).sum() > 100


def test_the_sentences_are_varied(drawn: Path) -> None:
    sentences = [path.read_text() for path in drawn.rglob("*.txt")]
    assert len(set(sentences)) >= 78
    assert {sentence.split()[0] for sentence in sentences} >= {"two", "three", "a"}


def test_it_shards_without_a_reject(drawn: Path, tmp_path: Path) -> None:
    summary = shard(ShardConfig(dataset=str(tmp_path / "dataset"), source=str(drawn)), HERE)
    assert (summary.rows_in, summary.rows_out, summary.rejected, summary.repaired) == (80, 80, {}, {})


def test_a_corpus_that_is_there_is_not_written_again(tmp_path: Path) -> None:
    write_corpus(tmp_path, 6)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    (lost,) = tmp_path.glob("*/00003.wav")
    lost.unlink()
    write_corpus(tmp_path, 6)
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert {path.name for path in after if path.is_file() and after[path] != before[path]} == {"00003.wav"}


def test_a_smaller_demo_in_the_place_of_a_larger_one_is_a_conflict(tmp_path: Path) -> None:
    write_corpus(tmp_path, 6)
    with pytest.raises(Conflict, match="holds more than 5 samples"):
        write_corpus(tmp_path, 5)
