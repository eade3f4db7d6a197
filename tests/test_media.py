"""What every decoder makes of every kind of bytes: (shape, corner pixel), (frames, rate), text, or the reason."""

import io
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny_files import RED, WHITE, picture, saved, sound, written

from mmdata.media import decode
from mmdata.media.audio import Waveform, resample
from mmdata.media.text import caption
from mmdata.types import Modality, Reason, Rejected

LOSSY = 3  # of 255: how far a lossy codec may move a flat colour
RESAMPLED = 1e-2  # of full scale: how far a resampled tone may be from the tone at that rate
IMAGE, AUDIO, TEXT = Modality.IMAGE, Modality.AUDIO, Modality.TEXT


def with_header(data: bytes, at: int, form: str, value: int) -> bytes:
    changed = bytearray(data)
    struct.pack_into(form, changed, at, value)
    return bytes(changed)


def bomb() -> bytes:
    """A PNG whose header says 30000 x 30000 pixels."""
    import zlib

    header = b"IHDR" + struct.pack(">II", 30_000, 30_000) + b"\x08\x02\0\0\0"
    data = picture()
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


def sideways(orientation: int) -> bytes:
    """2 x 3 pixels whose top left one is red once the orientation is undone."""
    upright = Image.new("RGB", (2, 3), WHITE)
    upright.putpixel((0, 0), RED)
    undo = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(upright.transpose(undo) if undo is not None else upright, "PNG", exif=exif)


def palette_with_hole() -> bytes:
    image = Image.new("P", (8, 6), 0)
    image.putpalette([*RED, 0, 0, 255])
    return saved(image, "PNG", transparency=0)


def frames(*colours) -> bytes:
    first, *rest = [Image.new("RGB", (8, 6), colour) for colour in colours]
    return saved(first, "GIF", save_all=True, append_images=rest)


SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="4" height="3"><rect width="4" height="3" fill="red"/></svg>'
SVG_TALL = SVG.replace(b'height="3"', b'height="1000000"', 1)
SVG_FOREIGN = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="/etc/passwd" width="4" height="3"/></svg>'
GREY16 = saved(Image.fromarray(np.full((6, 8), 65535, np.uint16)), "PNG")
GREY16_MIDDLE = saved(Image.fromarray(np.full((6, 8), 257 * 100, np.uint16)), "PNG")

NAN_PIXELS = saved(Image.fromarray(np.full((2, 2), np.nan, np.float32)), "TIFF")

IMAGES = {
    "jpeg": (picture("JPEG"), (6, 8, 3), RED),
    "progressive jpeg": (picture("JPEG", progressive=True), (6, 8, 3), RED),
    "png": (picture("PNG"), (6, 8, 3), RED),
    "webp": (picture("WEBP"), (6, 8, 3), RED),
    "gif": (picture("GIF"), (6, 8, 3), RED),
    "bmp": (picture("BMP"), (6, 8, 3), RED),
    "tiff": (picture("TIFF"), (6, 8, 3), RED),
    "first frame of a gif": (frames(RED, WHITE), (6, 8, 3), RED),
    "cmyk jpeg": (saved(Image.new("CMYK", (8, 6), (0, 255, 255, 0)), "JPEG"), (6, 8, 3), RED),
    "16-bit grey, white": (GREY16, (6, 8, 3), WHITE),
    "16-bit grey, 100 of 255": (GREY16_MIDDLE, (6, 8, 3), (100, 100, 100)),
    "8-bit grey": (saved(Image.new("L", (8, 6), 100), "PNG"), (6, 8, 3), (100, 100, 100)),
    "palette with alpha is on white": (palette_with_hole(), (6, 8, 3), WHITE),
    "rgba is on white": (saved(Image.new("RGBA", (8, 6), (255, 0, 0, 0)), "PNG"), (6, 8, 3), WHITE),
    "half red on white": (saved(Image.new("RGBA", (8, 6), (255, 0, 0, 127)), "PNG"), (6, 8, 3), (255, 128, 128)),
    "1 bit": (saved(Image.new("1", (8, 6), 1), "PNG"), (6, 8, 3), WHITE),
    "one pixel": (picture(size=(1, 1)), (1, 1, 3), RED),
    **{f"exif orientation {n}": (sideways(n), (3, 2, 3), RED) for n in range(1, 9)},
}

WAV = sound()
STEREO = np.stack([np.full(100, 0.5), np.full(100, -0.25)], axis=1)
NOISE = written(np.random.default_rng(0).uniform(-0.5, 0.5, 32_000), "OGG")
LAST_PAGE_CUT = NOISE[: NOISE.rfind(b"OggS") + 20]
SOUNDS = {
    "wav": (WAV, 1600, 16000),
    "float wav": (sound(subtype="FLOAT"), 1600, 16000),
    "24-bit wav": (sound(subtype="PCM_24"), 1600, 16000),
    "flac": (sound("FLAC"), 1600, 16000),
    "ogg": (sound("OGG"), 1600, 16000),
    "opus": (sound("OGG", subtype="OPUS"), 1600, 16000),
    "mp3": (sound("MP3"), 1600, 16000),
    "8 channels": (written(np.zeros((50, 8)) + 0.1), 50, 16000),
    "one frame": (written(np.zeros(1)), 1, 16000),
    "4 kHz": (sound(rate=4000), 400, 4000),
    "192 kHz": (sound(rate=192_000), 19_200, 192_000),
}

TEXTS = {
    "ascii": (b"a red ball", "a red ball"),
    "utf-8": ("ein großer Ball ☃".encode(), "ein großer Ball ☃"),
    "utf-8 with a byte order mark": ("ein Ball".encode("utf-8-sig"), "ein Ball"),
    "utf-16, little end first": (b"\xff\xfe" + "großer Ball".encode("utf-16-le"), "großer Ball"),
    "utf-16, big end first": (b"\xfe\xff" + "großer Ball".encode("utf-16-be"), "großer Ball"),
    "NULs are left out": (b"a\0 ball\0", "a ball"),
    "outer white space is left out": (b"\n a ball \r\n", "a ball"),
}

REJECTS = {
    "image: no bytes": (IMAGE, b"", Reason.EMPTY),
    "image: header says 30000 x 30000": (IMAGE, bomb(), Reason.DECODE_BOMB),
    "image: cut jpeg": (IMAGE, picture("JPEG", size=(64, 64))[:-40], Reason.DECODE_TRUNCATED),
    "image: cut png": (IMAGE, picture(size=(64, 64))[:-30], Reason.DECODE_TRUNCATED),
    "image: png cut in its header": (IMAGE, picture()[:40], Reason.DECODE_FAILED),
    "image: jpeg cut in its header": (IMAGE, picture("JPEG")[:20], Reason.DECODE_FAILED),
    "image: text named .jpg": (IMAGE, b"not a picture at all", Reason.UNSUPPORTED),
    "image: a page of HTML": (IMAGE, b"<!doctype html><html><body>404</body></html>", Reason.UNSUPPORTED),
    "image: postscript is never run": (IMAGE, b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", Reason.UNSUPPORTED),
    "image: a sound": (IMAGE, WAV, Reason.UNSUPPORTED),
    "image: NaN pixels": (
        IMAGE,
        saved(Image.fromarray(np.full((2, 2), np.nan, np.float32)), "TIFF"),
        Reason.NONFINITE_INPUT,
    ),
    "audio: no bytes": (AUDIO, b"", Reason.EMPTY),
    "audio: no frames": (AUDIO, written(np.zeros(0)), Reason.EMPTY),
    "audio: cut wav": (AUDIO, WAV[:-400], Reason.DECODE_TRUNCATED),
    "audio: cut ogg": (AUDIO, sound("OGG", seconds=2)[:-200], Reason.DECODE_TRUNCATED),
    "audio: ogg cut in its last byte": (AUDIO, sound("OGG", seconds=2)[:-1], Reason.DECODE_TRUNCATED),
    "audio: ogg cut in its last page's header": (AUDIO, LAST_PAGE_CUT, Reason.DECODE_TRUNCATED),
    "audio: cut flac": (AUDIO, sound("FLAC", seconds=2)[:-2000], Reason.DECODE_FAILED),
    "audio: NaN": (AUDIO, written(np.full(50, np.nan), subtype="FLOAT"), Reason.NONFINITE_INPUT),
    "audio: infinite": (AUDIO, written(np.full(50, np.inf), subtype="FLOAT"), Reason.NONFINITE_INPUT),
    "audio: 1 Hz": (AUDIO, with_header(WAV, 24, "<I", 1), Reason.BAD_SAMPLE_RATE),
    "audio: 1 MHz": (AUDIO, with_header(WAV, 24, "<I", 1_000_000), Reason.BAD_SAMPLE_RATE),
    "audio: longer than half an hour": (AUDIO, written(np.zeros(4000 * 1801), "FLAC", rate=4000), Reason.TOO_LONG),
    "audio: only a header": (AUDIO, WAV[:12], Reason.DECODE_FAILED),
    "audio: text named .wav": (AUDIO, b"not a sound at all", Reason.UNSUPPORTED),
    "audio: a picture": (AUDIO, picture(), Reason.UNSUPPORTED),
    "text: no bytes": (TEXT, b"", Reason.EMPTY),
    "text: white space": (TEXT, b" \n\t ", Reason.EMPTY),
    "text: only NULs": (TEXT, b"\0\0\0", Reason.EMPTY),
    "text: latin-1": (TEXT, "großer Ball".encode("latin-1"), Reason.BAD_TEXT),
    "text: half a utf-16 character": (TEXT, b"\xff\xfea", Reason.BAD_TEXT),
    "text: a picture": (TEXT, picture(), Reason.BAD_TEXT),
}


@pytest.mark.parametrize(("data", "shape", "corner"), IMAGES.values(), ids=IMAGES.keys())
def test_every_kind_of_image_becomes_upright_rgb_on_white(data, shape, corner):
    image = decode(IMAGE, data).value
    assert (image.shape, image.dtype) == (shape, np.uint8)
    assert image[0, 0].astype(int) == pytest.approx(corner, abs=LOSSY)


@pytest.mark.parametrize(("data", "count", "rate"), SOUNDS.values(), ids=SOUNDS.keys())
def test_every_kind_of_sound_becomes_one_channel_at_its_own_rate(data, count, rate):
    wave = decode(AUDIO, data).value
    assert (wave.samples.shape, wave.samples.dtype, wave.rate) == ((count,), np.float32, rate)
    assert np.abs(wave.samples).max() <= 1


@pytest.mark.parametrize(("data", "text"), TEXTS.values(), ids=TEXTS.keys())
def test_every_kind_of_text_becomes_a_str(data, text):
    assert decode(TEXT, data).value == text
    assert caption(data, 500) == text


@pytest.mark.parametrize(("modality", "data", "reason"), REJECTS.values(), ids=REJECTS.keys())
def test_what_cannot_be_decoded_is_rejected_with_its_reason(modality, data, reason):
    with pytest.raises(Rejected) as caught:
        decode(modality, data)
    assert caught.value.reason is reason


def test_a_megabyte_of_text_is_cut_and_marked_as_repaired():
    decoded = decode(TEXT, b"abcdefgh" * 131_072)
    assert decoded.value == "abcdefgh" * 8192
    assert decoded.repairs == (Reason.TOO_LONG,)


def test_a_caption_of_broken_text_is_still_readable():
    assert caption("großer Ball".encode("latin-1"), 500) == "gro\ufffder Ball"
    assert caption(b"abc" * 1000, 4) == "abca"


def test_channels_are_averaged():
    wave = decode(AUDIO, written(STEREO, subtype="FLOAT")).value
    assert wave.samples.tolist() == [0.125] * 100


@pytest.mark.parametrize("frames", [64_000, 0xFFFFFFF0], ids=["twice", "four thousand million"])
def test_a_flac_header_that_promises_more_frames_is_rejected_and_never_allocated(frames):
    honest = sound("FLAC", seconds=2)
    lying = with_header(honest, 22, ">I", frames)  # low 32 bits of the 36-bit number of frames
    with pytest.raises(Rejected) as caught:
        decode(AUDIO, lying)
    assert caught.value.reason in (Reason.DECODE_TRUNCATED, Reason.DECODE_FAILED)


def test_a_wav_of_unknown_length_is_read_to_its_end():
    streamed = with_header(with_header(WAV, 4, "<I", 0xFFFFFFFF), 40, "<I", 0xFFFFFFFF)
    assert decode(AUDIO, streamed).value.samples.shape == (1600,)


def test_resampling_keeps_the_tone():
    tone = decode(AUDIO, sound(rate=16000, seconds=0.5, subtype="FLOAT")).value
    wanted = decode(AUDIO, sound(rate=8000, seconds=0.5, subtype="FLOAT")).value
    inner = slice(400, -400)
    assert resample(tone, 8000)[inner] == pytest.approx(wanted.samples[inner], abs=RESAMPLED)
    assert resample(tone, 16000) is tone.samples


def test_resampling_one_frame_gives_at_most_a_few():
    assert resample(Waveform(np.zeros(1, np.float32), 16000), 48000).dtype == np.float32


def test_an_svg_is_drawn_with_its_own_ratio():
    pytest.importorskip("resvg_py")
    image = decode(IMAGE, SVG).value
    assert image.shape == (384, 512, 3)
    assert image[0, 0].tolist() == [*RED]


def test_a_very_tall_svg_is_drawn_no_larger_than_the_side_and_rejected():
    pytest.importorskip("resvg_py")
    with pytest.raises(Rejected, match="1 x 512 pixels, one side over 200 times the other"):
        decode(IMAGE, SVG_TALL)


@pytest.mark.parametrize("size", [(1, 201), (201, 1)])
def test_a_picture_narrower_than_any_encoder_can_take_is_rejected(size):
    with pytest.raises(Rejected, match="one side over 200 times the other"):
        decode(IMAGE, encoded(size))


def test_a_picture_of_the_narrowest_shape_is_decoded():
    assert decode(IMAGE, encoded((1, 200))).value.shape == (200, 1, 3)


def encoded(size):
    sink = io.BytesIO()
    Image.new("RGB", size).save(sink, "PNG")
    return sink.getvalue()


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


ORIGINALS = [(IMAGE, picture("JPEG")), (IMAGE, picture("PNG")), (IMAGE, picture("GIF")), (IMAGE, picture("WEBP"))]
ORIGINALS += [(AUDIO, WAV), (AUDIO, sound("FLAC")), (AUDIO, sound("OGG")), (TEXT, "großer Ball".encode())]


@settings(deadline=None)
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


def test_memoryviews_decode_like_bytes():
    view = memoryview(b"__" + picture())[2:]
    assert decode(IMAGE, view).value.shape == (6, 8, 3)
    assert isinstance(io.BytesIO(view).read(), bytes)
