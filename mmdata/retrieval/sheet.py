"""A contact sheet: the query and its hits as one PNG, pictures as pictures, sounds as waveforms."""

import io
import textwrap
from collections.abc import Sequence
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from mmdata.errors import NotFound
from mmdata.media import decode
from mmdata.storage.dataset import SHARDS, Dataset
from mmdata.storage.receipts import read_receipts
from mmdata.storage.shards import older_index, read_part, read_sample_table
from mmdata.types import Hit, Modality, Rejected

CELL, GAP, COLUMNS = 200, 16, 5  # pixels, pixels, cells in a row
LINE, LINES = 18, 4  # of a caption
INK, FAINT, PAPER, WAVE = "#1c1c1c", "#6b6b6b", "#ffffff", "#2f6f8f"


def contact_sheet(dataset: Dataset, title: str, groups: Sequence[tuple[str, Modality, Sequence[Hit]]]) -> bytes:
    """A PNG with one block a group: its name and the modality that it was searched by, and its hits, best first."""
    height = GAP + 40 + sum(_height(len(hits)) for _, _, hits in groups)
    width = GAP + COLUMNS * (CELL + GAP)
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, GAP), textwrap.shorten(title, 90), INK, font=_font(24))
    top = GAP + 48
    receipts = read_receipts(dataset.store, SHARDS)
    samples = cache(lambda shard: read_sample_table(dataset, receipts[shard]) if shard in receipts else None)
    for name, modality, hits in groups:
        draw.text((GAP, top), name, FAINT, font=_font(15))
        for place, hit in enumerate(hits):
            row, column = divmod(place, COLUMNS)
            corner = GAP + column * (CELL + GAP), top + 26 + row * (CELL + LINES * LINE + GAP)
            _cell(sheet, draw, corner, hit, _picture(dataset, hit, _record(samples(hit.shard), hit), modality))
        top += _height(len(hits))
    sink = io.BytesIO()
    sheet.save(sink, "PNG")
    return sink.getvalue()


def _record(samples: pa.Table | None, hit: Hit) -> dict[str, object]:
    """The row of a hit in its shard. Conflict when the shards are not those that the index was made of."""
    rows = [] if samples is None else samples.filter(pc.equal(samples["id"], hit.id)).to_pylist()
    if not rows or rows[0]["key"] != hit.key:
        raise older_index(hit.id, hit.key)
    record: dict[str, object] = rows[0]
    return record


def _height(hits: int) -> int:
    return 26 + -(-max(hits, 1) // COLUMNS) * (CELL + LINES * LINE + GAP)


def _cell(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, corner: tuple[int, int], hit: Hit, picture: Image.Image
) -> None:
    left, top = corner
    picture.thumbnail((CELL, CELL))
    sheet.paste(picture, (left + (CELL - picture.width) // 2, top + (CELL - picture.height) // 2))
    draw.rectangle((left, top, left + CELL, top + CELL), outline="#d8d8d8")
    draw.text((left, top + CELL + 3), f"{hit.rank}  {hit.score:.2f}", FAINT, font=_font(13))
    for number, line in enumerate(textwrap.wrap(hit.caption or hit.key, 30)[: LINES - 1], start=1):
        draw.text((left, top + CELL + 3 + number * LINE), line, INK, font=_font(13))


def _picture(dataset: Dataset, hit: Hit, record: dict[str, object], modality: Modality) -> Image.Image:
    """What a hit looks like: its sound as a waveform when sounds were searched, else its picture."""
    try:
        if modality is Modality.AUDIO:
            return _waveform(decode(modality, read_part(dataset, hit.shard, record, modality).data).value.samples)
        part = read_part(dataset, hit.shard, record, Modality.IMAGE)
        return Image.fromarray(decode(Modality.IMAGE, part.data).value)
    except (NotFound, Rejected):
        return Image.new("RGB", (CELL, CELL), "#f4f4f4")


def _waveform(samples: NDArray[np.float32]) -> Image.Image:
    picture = Image.new("RGB", (CELL, CELL), PAPER)
    draw = ImageDraw.Draw(picture)
    columns = np.array_split(np.abs(samples), CELL)
    peaks = np.array([column.max() if len(column) else 0.0 for column in columns])
    for x, peak in enumerate(peaks / max(float(peaks.max()), 1e-9)):
        half = max(1, int(peak * CELL * 0.45))
        draw.line((x, CELL // 2 - half, x, CELL // 2 + half), fill=WAVE)
    return picture


def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)
