"""What holds over all files: decoders agree, limits hold in memory, threads and damage change nothing."""

import io
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from media_files import (
    behind,
    claiming_everything,
    cmyk,
    frames,
    heic,
    inflating,
    photo,
    png_that_says,
    png_with,
    tiff,
    track,
    with_header,
)
from media_files import mp3 as noise
from PIL import Image, ImageOps
from tiny_files import RED, picture, saved, sound, written

from mmdata.media import decode
from mmdata.media.audio import Waveform, resample
from mmdata.media.text import caption
from mmdata.types import Modality, Reason, Rejected

FAST_MAX, FAST_MEAN = 1, 0.05  # of 255: how far the fast way may be from Pillow; measured: 0
SCALED_MEAN = 4  # of 255: how far a scaled decode may be from the whole image scaled by averaging
RESAMPLED = 1e-2  # of full scale: how far a resampled tone may be from the tone at that rate
MEGABYTES = 256  # of address space that a decode of a bomb gets on top of what the decoders hold
IMAGE, AUDIO, TEXT = Modality.IMAGE, Modality.AUDIO, Modality.TEXT

SIDEWAYS = Image.Exif()
SIDEWAYS[0x0112] = 6
JPEGS = {
    **{
        f"{size[0]} x {size[1]}, subsampling {sub}{', progressive' * progressive}": photo(
            size, subsampling=sub, progressive=progressive
        )
        for size in ((17, 33), (255, 129), (640, 480))
        for sub in (0, 1, 2)
        for progressive in (False, True)
    },
    "low quality": photo((255, 129), quality=10),
    "restart marks": photo((255, 129), restart_marker_blocks=2),
    "grey": photo((255, 129), mode="L"),
    "stored as RGB": photo((255, 129), keep_rgb=True),
    "on its side": photo((255, 129), exif=SIDEWAYS),
    "CMYK": photo((255, 129), mode="CMYK"),
}


def by_pillow(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


@pytest.mark.parametrize("data", JPEGS.values(), ids=JPEGS.keys())
def test_every_way_to_decode_a_jpeg_gives_the_pixels_of_pillow(data):
    image, reference = decode(IMAGE, data).value, by_pillow(data)
    assert image.shape == reference.shape
    difference = np.abs(image.astype(int) - reference)
    assert difference.max() <= FAST_MAX
    assert difference.mean() <= FAST_MEAN


@pytest.mark.parametrize(
    ("size", "min_side", "shape"),
    [
        ((640, 480), 0, (480, 640, 3)),
        ((640, 480), 224, (240, 320, 3)),
        ((640, 480), 240, (240, 320, 3)),
        ((640, 480), 241, (480, 640, 3)),
        ((640, 480), 100, (120, 160, 3)),
        ((256, 256), 224, (256, 256, 3)),
        ((449, 448), 224, (224, 225, 3)),
        ((300, 40), 224, (40, 300, 3)),
    ],
)
def test_a_jpeg_may_be_decoded_smaller_but_no_side_below_the_one_asked_for(size, min_side, shape):
    assert decode(IMAGE, photo(size), min_side=min_side).value.shape == shape


def test_a_jpeg_decoded_smaller_is_upright_and_the_same_picture():
    small = decode(IMAGE, photo((640, 480), exif=SIDEWAYS), min_side=240).value
    whole = decode(IMAGE, photo((640, 480), exif=SIDEWAYS)).value
    averaged = whole.reshape(320, 2, 240, 2, 3).mean(axis=(1, 3))
    assert small.shape == (320, 240, 3)
    assert np.abs(small - averaged).mean() < SCALED_MEAN


def test_what_cannot_be_decoded_smaller_is_decoded_whole():
    assert decode(IMAGE, photo((64, 48), "PNG"), min_side=8).value.shape == (48, 64, 3)
    assert decode(IMAGE, photo((64, 48), mode="CMYK"), min_side=8).value.shape == (48, 64, 3)


def test_the_background_of_transparent_pixels_can_be_chosen():
    hole = saved(Image.new("RGBA", (8, 6), (255, 255, 255, 0)), "PNG")
    assert decode(IMAGE, hole, background=(10, 20, 30)).value[0, 0].tolist() == [10, 20, 30]


def test_sixteen_bits_are_scaled_to_eight_over_their_whole_range():
    values = np.arange(65536).reshape(256, 256)
    grey = decode(IMAGE, tiff(values.astype(np.uint16)[:, :, None])).value
    assert grey[:, :, 0].tolist() == np.round(values / 257).astype(int).tolist()


def test_heic_is_upright():
    import pillow_heif

    sink = io.BytesIO()
    sideways = Image.new("RGB", (64, 48), RED)
    pillow_heif.from_pillow(sideways).save(sink, exif=SIDEWAYS.tobytes())
    assert decode(IMAGE, sink.getvalue()).value.shape == by_heif(sink.getvalue()).shape == (64, 48, 3)


def by_heif(data: bytes) -> np.ndarray:
    import pillow_heif

    return np.asarray(ImageOps.exif_transpose(pillow_heif.open_heif(io.BytesIO(data)).to_pillow()))


def test_heic_without_its_decoder_names_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif.as_plugin", None)
    with pytest.raises(Rejected, match=r"pip install 'mmdata\[heif\]'") as caught:
        decode(IMAGE, heic())
    assert caught.value.reason is Reason.UNSUPPORTED


def test_the_sound_track_of_a_video_is_its_tone():
    wave = decode(AUDIO, track("mov", "pcm_s16le", video="mpeg4")).value
    assert wave.samples == pytest.approx(np.sin(np.arange(24_000) / 20) / 2, abs=1e-4)


def test_channels_are_averaged():
    stereo = np.stack([np.full(100, 0.5), np.full(100, -0.25)], axis=1)
    wave = decode(AUDIO, written(stereo, subtype="FLOAT")).value
    assert wave.samples.tolist() == [0.125] * 100


def test_a_sound_far_over_full_scale_is_divided_by_its_peak_and_a_little_over_is_left():
    loud, hot = np.array([1e5, -5e4, 0, 0]), np.array([1.5, -0.5, 0, 0])
    assert decode(AUDIO, written(loud, subtype="FLOAT")).value.samples.tolist() == [1, -0.5, 0, 0]
    assert decode(AUDIO, written(hot, subtype="FLOAT")).value.samples.tolist() == [1.5, -0.5, 0, 0]


def test_a_wav_of_unknown_length_is_read_to_its_end():
    streamed = with_header(with_header(sound(), 4, "<I", 0xFFFFFFFF), 40, "<I", 0xFFFFFFFF)
    assert decode(AUDIO, streamed).value.samples.shape == (1600,)


def test_resampling_keeps_the_tone():
    tone = decode(AUDIO, sound(rate=16000, seconds=0.5, subtype="FLOAT")).value
    wanted = decode(AUDIO, sound(rate=8000, seconds=0.5, subtype="FLOAT")).value
    inner = slice(400, -400)
    assert resample(tone, 8000)[inner] == pytest.approx(wanted.samples[inner], abs=RESAMPLED)
    assert resample(tone, 16000) is tone.samples


def test_resampling_one_frame_gives_at_most_a_few():
    assert resample(Waveform(np.zeros(1, np.float32), 16000), 48000).dtype == np.float32


def test_a_caption_of_broken_text_is_still_readable():
    assert caption("großer Ball".encode("latin-1"), 500) == "gro\ufffder Ball"
    assert caption(b"abc" * 1000, 4) == "abca"
    assert caption("großer Ball".encode("utf-16"), 500) == "großer Ball"


SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="4" height="3"><rect width="4" height="3" fill="red"/></svg>'
SVG_TALL = SVG.replace(b'height="3"', b'height="1000000"', 1)
SVG_FOREIGN = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="/etc/passwd" width="4" height="3"/></svg>'


def test_an_svg_is_drawn_with_its_own_ratio():
    pytest.importorskip("resvg_py")
    image = decode(IMAGE, SVG).value
    assert image.shape == (384, 512, 3)
    assert image[0, 0].tolist() == [*RED]


def test_a_very_tall_svg_is_drawn_no_larger_than_the_side_and_rejected():
    pytest.importorskip("resvg_py")
    with pytest.raises(Rejected, match="1 x 512 pixels, one side over 200 times the other"):
        decode(IMAGE, SVG_TALL)


@pytest.mark.parametrize(
    ("data", "reason"),
    [(SVG_FOREIGN, Reason.UNSUPPORTED), (SVG[:-20], Reason.DECODE_FAILED), (b"<svg \xff></svg>", Reason.DECODE_FAILED)],
    ids=["reads another file", "cut", "not utf-8"],
)
def test_an_svg_that_is_unsafe_or_broken_is_rejected(data, reason):
    pytest.importorskip("resvg_py")
    with pytest.raises(Rejected) as caught:
        decode(IMAGE, data)
    assert caught.value.reason is reason


def black(kind: str, **options) -> bytes:
    """144 million black pixels in a small file."""
    return saved(Image.new("1", (12_000, 12_000)), kind, **options)


MP4 = track("mp4", "aac", video="mpeg4")
SIDES = picture("JPEG").index(b"\xff\xc0") + 5
ENDLESS = with_header(with_header(sound(), 4, "<I", 0xFFFFFFF0), 40, "<I", 0xFFFFFF00)
BOMBS = {
    "image png 12k": (black("PNG"), Reason.DECODE_BOMB),
    "image png 30k": (png_that_says(30_000, 30_000), Reason.DECODE_BOMB),
    "image png text": (png_with(b"zTXt", b"a\0\0" + inflating(500)), Reason.DECODE_BOMB),
    "image png profile": (png_with(b"iCCP", b"a\0\0" + inflating(500)), Reason.DECODE_BOMB),
    "image gif": (with_header(picture("GIF"), 6, "<I", 12_000 << 16 | 12_000), Reason.DECODE_BOMB),
    "image webp": (saved(Image.new("RGB", (12_000, 12_000)), "WEBP", lossless=True, method=0), Reason.DECODE_BOMB),
    "image webp says": (
        with_header(frames("WEBP", RED, (0, 0, 0)), 24, "<Q", 0x002EDF002EDF | 0x4E41 << 48),
        Reason.DECODE_BOMB,
    ),
    "image bmp": (with_header(with_header(picture("BMP"), 18, "<I", 30_000), 22, "<I", 30_000), Reason.DECODE_BOMB),
    "image tiff": (black("TIFF", compression="group4"), Reason.DECODE_BOMB),
    "image jpeg": (
        with_header(picture("JPEG"), SIDES, ">I", 0xF000F000),
        Reason.DECODE_BOMB,
    ),
    "image avif": (behind(behind(picture("AVIF"), b"ispe", 8, 12_000), b"ispe", 12, 12_000), Reason.DECODE_BOMB),
    "image heic": (behind(behind(heic(), b"ispe", 8, 12_000), b"ispe", 12, 12_000), Reason.DECODE_FAILED),
    "audio flac": (claiming_everything(sound("FLAC")), Reason.TOO_LONG),
    "audio wav": (
        with_header(with_header(sound(), 4, "<I", 0xFFFFFFF0), 40, "<I", 0xFFFFFF00),
        Reason.DECODE_TRUNCATED,
    ),
    "audio mp4 samples": (behind(MP4, b"stsz", 12, 0xFFFFFFF), Reason.DECODE_FAILED),
    "audio mp4 times": (behind(MP4, b"stts", 8, 0xFFFFFFF), Reason.DECODE_FAILED),
    "audio mp4 chunks": (behind(MP4, b"stsc", 8, 0xFFFFFFF), Reason.DECODE_FAILED),
}


def reasons(folder: Path, files: dict[str, bytes], megabytes: int) -> dict[str, str]:
    """What becomes of files that a process with so much memory decodes."""
    for name, data in files.items():
        (folder / name).write_bytes(data)
    child = [sys.executable, str(Path(__file__).with_name("media_bombs.py")), str(folder), str(megabytes)]
    done = subprocess.run(child, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


def test_a_bomb_is_rejected_in_little_memory(tmp_path: Path):
    files = {name: data for name, (data, _) in BOMBS.items()}
    assert reasons(tmp_path, files, MEGABYTES) == {name: str(reason) for name, (_, reason) in BOMBS.items()}


def test_what_needs_more_memory_than_there_is_is_a_reject_for_memory_and_what_follows_is_decoded(tmp_path: Path):
    large = Image.new("L", (7_900, 7_900))  # within the limit on pixels: 187 MB as RGB
    files = {f"image 0 {kind}": saved(large, kind) for kind in ("PNG", "JPEG", "TIFF")}
    files["audio 1"] = written(np.tile(np.float32([0, 0.5]), 12_000_000), "FLAC", rate=48_000)  # 96 MB
    files |= {"image 2": picture("PNG"), "audio 3": sound()}
    decoded = {"image 2": "decoded", "audio 3": "decoded"}
    assert reasons(tmp_path, files, 64) == dict.fromkeys(sorted(files), "oom") | decoded


ORIGINALS = [
    (IMAGE, photo()),
    (IMAGE, photo(progressive=True)),
    (IMAGE, cmyk((9, 8, 7, 6))),
    (IMAGE, photo(kind="PNG")),
]
ORIGINALS += [(IMAGE, frames(kind, RED, (0, 0, 0))) for kind in ("GIF", "WEBP", "TIFF", "PNG")]
ORIGINALS += [(IMAGE, picture("AVIF")), (IMAGE, heic()), (IMAGE, photo(exif=SIDEWAYS))]
ORIGINALS += [(AUDIO, sound()), (AUDIO, sound("FLAC")), (AUDIO, sound("OGG")), (AUDIO, noise(0.5))]
ORIGINALS += [(AUDIO, MP4), (AUDIO, track("webm", "libopus", seconds=0.1)), (AUDIO, track("adts", "aac", seconds=0.1))]
ORIGINALS += [(TEXT, "großer Ball".encode())]


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(ORIGINALS), st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=8), st.data())
def test_damaged_bytes_decode_or_are_rejected_and_nothing_else(original, changes, more):
    modality, data = original
    damaged = bytearray(data[: more.draw(st.integers(1, len(data)))])
    for place, value in changes:
        damaged[place % len(damaged)] = value
    try:
        decode(modality, bytes(damaged))
    except Rejected as problem:
        assert problem.reason in Reason


def test_threads_decode_what_one_thread_decodes():
    images = [(modality, data) for modality, data in ORIGINALS if modality is IMAGE] * 8
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda original: decode(*original).value, images))
    assert all(np.array_equal(image, decode(*original).value) for image, original in zip(together, images, strict=True))


def test_memoryviews_decode_like_bytes():
    view = memoryview(b"__" + picture())[2:]
    assert decode(IMAGE, view).value.shape == (6, 8, 3)
    assert isinstance(io.BytesIO(view).read(), bytes)
