"""The contact sheet shows each hit as what was searched, beside its caption."""

import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mmdata.media import decode
from mmdata.retrieval.search import open_index
from mmdata.retrieval.sheet import CELL, COLUMNS, GAP, LINE, LINES, contact_sheet
from mmdata.storage.dataset import Dataset
from mmdata.types import Hit, Modality

TOP = GAP + 48 + 26  # of the first row of cells
INNER = slice(2, CELL - 2)  # without the frame


@pytest.fixture(scope="module")
def hits(built: Dataset) -> list[Hit]:
    opened = open_index(built, "efficientnet-lite0")
    return opened.search(opened.vector_of(opened.rows["key"][4].as_py()), k=7)[0]


def draw(dataset: Dataset, *groups: tuple[str, Modality, list[Hit]], title: str = "a star") -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(contact_sheet(dataset, title, groups))).convert("RGB"))


def cell(sheet: NDArray[np.uint8], place: int) -> NDArray[np.uint8]:
    row, column = divmod(place, COLUMNS)
    top, left = TOP + row * (CELL + LINES * LINE + GAP), GAP + column * (CELL + GAP)
    return sheet[top : top + CELL, left : left + CELL][INNER, INNER]


def picture(corpus: Path, hit: Hit) -> NDArray[np.uint8]:
    """The corpus picture of a hit, centred on a cell of paper."""
    paper = Image.new("RGB", (CELL, CELL), "white")
    drawn = Image.fromarray(decode(Modality.IMAGE, (corpus / f"{hit.key}.png").read_bytes()).value)
    paper.paste(drawn, ((CELL - drawn.width) // 2, (CELL - drawn.height) // 2))
    return np.asarray(paper)[INNER, INNER]


def test_every_hit_of_a_picture_search_is_its_picture(built: Dataset, corpus: Path, hits: list[Hit]) -> None:
    sheet = draw(built, ("pictures", Modality.IMAGE, hits))
    assert sheet.shape[1] == GAP + COLUMNS * (CELL + GAP)
    for place in (0, 4, 5, 6):
        assert np.array_equal(cell(sheet, place), picture(corpus, hits[place]))


def test_every_hit_of_a_sound_search_is_a_waveform(built: Dataset, corpus: Path, hits: list[Hit]) -> None:
    sheet = draw(built, ("sounds", Modality.AUDIO, hits[:2]))
    colours = {tuple(colour) for colour in cell(sheet, 0).reshape(-1, 3)}
    assert colours == {(255, 255, 255), (0x2F, 0x6F, 0x8F)}
    assert not np.array_equal(cell(sheet, 0), cell(sheet, 1))


def test_groups_stand_below_each_other(built: Dataset, corpus: Path, hits: list[Hit]) -> None:
    both = draw(built, ("pictures", Modality.IMAGE, hits[:5]), ("sounds", Modality.AUDIO, hits[:5]))
    above = draw(built, ("pictures", Modality.IMAGE, hits[:5]))
    assert np.array_equal(both[: len(above)], above)
    assert len(both) - len(above) == 26 + CELL + LINES * LINE + GAP


def test_a_caption_is_written_below_its_picture(built: Dataset, hits: list[Hit]) -> None:
    sheet = draw(built, ("pictures", Modality.IMAGE, hits[:1]))
    below = sheet[TOP + CELL + 3 : TOP + CELL + 3 + LINES * LINE, GAP : GAP + CELL]
    assert (below.min(axis=2) < 100).sum() > 100  # ink


def test_no_hits_still_make_a_sheet(built: Dataset) -> None:
    assert draw(built, ("pictures", Modality.IMAGE, [])).min() < 100


def test_a_hit_without_a_picture_is_an_empty_cell(built: Dataset, tmp_path: Path) -> None:
    from conftest import HERE

    from mmdata.config import ExtractConfig, IndexConfig, ShardConfig
    from mmdata.stages.extract import extract
    from mmdata.stages.index import index
    from mmdata.stages.shard import shard

    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "a.txt").write_text("words alone")
    url = str(tmp_path / "dataset")
    shard(ShardConfig(dataset=url, source=str(tmp_path / "corpus")), HERE)
    extract(ExtractConfig(dataset=url, encoders=("minilm",)), HERE)
    index(IndexConfig(dataset=url, features="minilm"), HERE)
    opened = open_index(url, "minilm")
    sheet = draw(Dataset.open(url), ("words", Modality.TEXT, opened.search(opened.vector_of("a"))[0]))
    assert np.unique(cell(sheet, 0)).tolist() == [0xF4]
