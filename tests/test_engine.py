"""The inside of an extraction: windows, token vectors, and a device that is never left waiting."""

from pathlib import Path

import numpy as np
import pytest
import slow_device
from PIL import Image

from mmdata.cluster import Resources
from mmdata.config import ExtractConfig, IndexConfig, ShardConfig
from mmdata.demo import write_corpus
from mmdata.encoders import Request, Windows, describe, encode_one, load_encoder, pool_windows
from mmdata.media.audio import Waveform
from mmdata.retrieval.search import Index, open_index
from mmdata.stages import Summary
from mmdata.stages.extract import extract
from mmdata.stages.index import index
from mmdata.stages.lanes import shorten
from mmdata.stages.shard import shard
from mmdata.storage.dataset import Dataset
from mmdata.storage.features import Features, token_vectors, vectors
from mmdata.types import Modality

HERE = Resources(workers=0)
LONG = "a red bird sits on the roof of an old house near the water " * 30  # 14 words, 420 in all
SHORT = "a red bird"


@pytest.fixture
def texts(tmp_path: Path) -> Dataset:
    """A long text and a short one."""
    (tmp_path / "long.txt").write_text(LONG)
    (tmp_path / "short.txt").write_text(SHORT)
    url = str(tmp_path / "dataset")
    shard(ShardConfig(dataset=url, source=str(_table(tmp_path))), HERE)
    return Dataset.open(url)


def _table(folder: Path) -> Path:
    path = folder / "texts.csv"
    path.write_text(f"key,text\nlong,{LONG}\nshort,{SHORT}\n")
    return path


def run(dataset: Dataset, spec: str, **options: object) -> Summary:
    return extract(ExtractConfig.model_validate({"dataset": dataset.url, "encoders": (spec,)} | options), HERE)


def test_a_long_text_is_the_mean_of_its_windows_weighed_by_length(texts: Dataset) -> None:
    summary = run(texts, "minilm", dtype="float32")
    encoder = load_encoder(describe("minilm"))
    windows = encoder.prepare(LONG.strip())
    assert [window.length for window in windows] == [256, 168]
    parts = encoder.encode([window.data for window in windows])
    mean = (256 * parts[0] + 168 * parts[1]) / (256 + 168)
    table = Features(texts, "minilm").to_arrow()
    assert table["key"].to_pylist() == ["long", "short"]
    np.testing.assert_allclose(vectors(table)[0], mean / np.linalg.norm(mean), atol=1e-6)
    np.testing.assert_allclose(vectors(table)[1], encode_one(encoder, SHORT)[0], atol=1e-6)
    assert (summary.rows_in, summary.rows_out, summary.repaired) == (2, 2, {})


def test_windows_can_be_rows_with_start_and_end(texts: Dataset) -> None:
    summary = run(texts, "minilm", windows="rows", dtype="float32")
    table = Features(texts, "minilm").to_arrow()
    assert table["key"].to_pylist() == ["long", "long", "short"]
    spans = list(zip(table["start"].to_pylist(), table["end"].to_pylist(), strict=True))
    text = LONG.strip()
    assert spans[0][0] == 0
    assert text[int(spans[0][1]) :].split() == text[int(spans[1][0]) :].split()
    assert spans[1][1] == len(text)
    assert spans[2] == (0, len(SHORT))
    assert (summary.rows_in, summary.rows_out) == (3, 3)
    encoder = load_encoder(describe("minilm"))
    second = encoder.encode([encoder.prepare(text)[1].data])
    np.testing.assert_allclose(vectors(table)[1:2], second, atol=1e-6)


def test_a_hit_says_which_window_it_is(texts: Dataset) -> None:
    run(texts, "minilm", windows="rows")
    index(IndexConfig(dataset=texts.url, features="minilm"), HERE)
    opened = open_index(texts, "minilm")
    (hits,) = opened.search(opened.encode(Modality.TEXT, SHORT), 3)
    assert (hits[0].key, hits[0].window) == ("short", (0.0, len(SHORT)))
    assert {hit.window[0] for hit in hits if hit.key == "long"} > {0.0}


def test_a_long_sound_has_a_row_a_window() -> None:
    request = Request(windows=Windows.ROWS, window_seconds=2.0)
    encoder = load_encoder(describe("mel-stats", request))
    noise = np.random.default_rng(0).normal(size=5 * 16_000).astype(np.float32)
    windows = encoder.prepare(Waveform(noise, 16_000))
    assert [(window.start, window.end) for window in windows] == [(0.0, 2.0), (2.0, 4.0), (4.0, 5.0)]
    np.testing.assert_array_equal(windows[2].data["wave"], noise[64_000:])


def test_a_cut_sound_is_a_repair() -> None:
    encoder = load_encoder(describe("mel-stats", Request(windows=Windows.CUT, window_seconds=2.0)))
    (window,) = encoder.prepare(Waveform(np.ones(48_000, np.float32), 16_000))
    assert (window.end, window.repairs) == (2.0, ("too_long",))


def test_pooling_one_window_changes_no_bit() -> None:
    rows = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    pooled = pool_windows(rows, np.array([7, 2, 6]), np.array([0, 1]), normalised=False)
    np.testing.assert_array_equal(pooled[0], rows[0])
    np.testing.assert_allclose(pooled[1], (2 * rows[1] + 6 * rows[2]) / 8, rtol=1e-6)


@pytest.mark.parametrize(
    ("length", "most", "wanted"),
    [(2, 3, [0, 1]), (3, 3, [0, 1, 2]), (6, 3, [0.5, 2.5, 4.5]), (7, 3, [0.5, 2.5, 5]), (5, 1, [2])],
)
def test_a_long_sequence_of_tokens_is_shortened_to_means(length: int, most: int, wanted: list[float]) -> None:
    sequence = np.arange(length, dtype=np.float32)[:, None]
    assert shorten(sequence, most)[:, 0].tolist() == wanted


def test_the_mean_of_large_float16_numbers_does_not_overflow() -> None:
    assert shorten(np.full((3, 1), 40_000, np.float16), 1).tolist() == [[40_000]]


def test_token_vectors_lie_beside_the_pooled_one(texts: Dataset) -> None:
    run(texts, "slow=slow_device:SlowDevice", tokens=4)
    table = Features(texts, "slow").to_arrow()
    flat, offsets = token_vectors(table)
    assert flat.dtype == np.float16
    assert offsets.tolist() == [0, 4, 7]
    assert flat[4:].tolist() == [[1, 1, 1], [3, 3, 3], [4, 4, 4]]
    words = np.array([len(word) for word in LONG.split()])
    stretches = [words[start:end].mean() for start, end in [(0, 105), (105, 210), (210, 315), (315, 420)]]
    np.testing.assert_allclose(flat[:4, 0], stretches, atol=2e-3)  # float16
    assert vectors(table)[1].tolist() == [10, 3]


def test_tokens_are_read_back_for_a_part_of_the_rows(texts: Dataset) -> None:
    run(texts, "slow=slow_device:SlowDevice", tokens=4)
    flat, offsets = token_vectors(Features(texts, "slow").to_arrow().slice(1))
    assert offsets.tolist() == [0, 3]
    assert flat[:, 0].tolist() == [1, 3, 4]


def test_a_device_with_work_is_busy(tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus", 300)
    url = str(tmp_path / "dataset")
    source = str(tmp_path / "corpus")
    shard(ShardConfig(dataset=url, source=source, modalities=("text",), samples_per_shard=50), HERE)
    slow_device.busy.clear()
    extract(ExtractConfig(dataset=url, encoders=("slow_device:SlowDevice",)), HERE)
    spans = sorted(slow_device.busy)
    assert len(spans) == 150
    assert sum(end - start for start, end in spans) >= 0.9 * (spans[-1][1] - spans[0][0])


def test_the_background_of_transparent_pictures_is_part_of_the_card(tmp_path: Path) -> None:
    Image.new("RGBA", (64, 64), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    for colour in ("white", "black"):
        Image.new("RGB", (64, 64), colour).save(tmp_path / f"{colour}.png")
    dataset = _sharded(tmp_path)
    run(dataset, "efficientnet-lite0")
    run(dataset, "black=efficientnet-lite0", background="#000000")
    black, clear, white = vectors(Features(dataset, "efficientnet-lite0").to_arrow())
    on_black = vectors(Features(dataset, "black").to_arrow())
    np.testing.assert_array_equal(clear, white)
    np.testing.assert_array_equal(on_black, [black, black, white])
    cards = [Features(dataset, name).card for name in ("efficientnet-lite0", "black")]
    assert cards[0].fingerprint != cards[1].fingerprint
    opened = _index(dataset, "black")
    (hits,) = opened.search(opened.encode(Modality.IMAGE, (tmp_path / "clear.png").read_bytes()), 2)
    assert {hit.key for hit in hits} == {"black", "clear"}


def test_pictures_may_be_decoded_smaller_where_that_is_asked(tmp_path: Path) -> None:
    small = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    Image.fromarray(small).resize((2048, 1536), Image.Resampling.BICUBIC).save(tmp_path / "large.jpg")
    dataset = _sharded(tmp_path)
    run(dataset, "efficientnet-lite0", dtype="float32")
    run(dataset, "smaller=efficientnet-lite0", dtype="float32", min_side=512)
    (exact,), (near,) = (vectors(Features(dataset, name).to_arrow()) for name in ("efficientnet-lite0", "smaller"))
    cosine = exact @ near / np.linalg.norm(exact) / np.linalg.norm(near)
    assert 0.99 < cosine < 0.99999  # another picture, and nearly the same
    assert Features(dataset, "smaller").card.preprocessing["decode"] == {"min_side": 512, "background": "#ffffff"}


def _sharded(folder: Path) -> Dataset:
    url = f"{folder}-dataset"
    shard(ShardConfig(dataset=url, source=str(folder)), HERE)
    return Dataset.open(url)


def _index(dataset: Dataset, features: str) -> Index:
    index(IndexConfig(dataset=dataset.url, features=features), HERE)
    return open_index(dataset, features)
