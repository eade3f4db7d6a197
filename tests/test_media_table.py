"""Every rule of the decoders and its file: what becomes of it, and what is said about that."""

import struct

import numpy as np
import pytest
from media_files import (
    behind,
    claiming_everything,
    cmyk,
    cmyk_without_adobe,
    frames,
    heic,
    inflating,
    ink_profile,
    mp3,
    palette_with_hole,
    photo,
    png16,
    png_that_says,
    png_with,
    sideways,
    stretched,
    tagged,
    tiff,
    tiff_loop,
    tone,
    track,
    with_header,
    without_length,
    ycck,
)
from PIL import Image
from tiny_files import RED, WHITE, picture, saved, sound, written

from mmdata.media import decode
from mmdata.types import Modality, Reason, Rejected

LOSSY = 8  # of 255: how far a lossy codec may move a flat colour
PADDING = 2048  # frames that an encoder in frames of 1024 may add in front and at the end
EXACT = 0
IMAGE, AUDIO, TEXT = Modality.IMAGE, Modality.AUDIO, Modality.TEXT
GREY, BLACK = (119, 119, 119), (0, 0, 0)  # L* = 50 in sRGB
RED_INK = (0, 255, 255, 0)
ONE_BIT = Image.fromarray(np.array([[True, False]]))
DEEP = stretched((6, 8), 0, 65535, np.uint16)[::-1, ::-1]
FULL = np.full((6, 8, 1), 65535, np.uint16)
HUNDRED = np.full((6, 8, 3), 257 * 100, np.uint16)
WAV, FLAC, MP3 = sound(), written(tone(), "FLAC"), mp3()
OGG = sound("OGG", seconds=2)
M4A, MP4 = track("ipod", "aac"), track("mp4", "aac", video="mpeg4")
MKV, WEBM = track("matroska", "aac", video="mpeg4"), track("webm", "libopus", video="libvpx")
MOV = track("mov", "pcm_s16le", video="mpeg4")
BROKEN_EXIF = b"\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x63\0\xff\xff\xff\xff\0\0"

IMAGES = {  # bytes, shape, top left pixel, repairs
    "jpeg": (picture("JPEG"), (6, 8, 3), RED, ()),
    "progressive jpeg": (picture("JPEG", progressive=True), (6, 8, 3), RED, ()),
    "grey jpeg": (saved(Image.new("L", (8, 6), 77), "JPEG"), (6, 8, 3), (77, 77, 77), ()),
    "jpeg that stores RGB": (picture("JPEG", keep_rgb=True), (6, 8, 3), RED, ()),
    "jpeg of Adobe's inverted CMYK": (cmyk(RED_INK), (6, 8, 3), RED, ()),
    "jpeg of CMYK, not inverted": (cmyk_without_adobe(RED_INK), (6, 8, 3), RED, ()),
    "jpeg of YCCK": (ycck(RED_INK), (6, 8, 3), RED, ()),
    "jpeg of CMYK with a profile": (cmyk(RED_INK, icc_profile=ink_profile()), (6, 8, 3), GREY, ()),
    "jpeg of CMYK, broken profile": (cmyk(RED_INK, icc_profile=b"no"), (6, 8, 3), RED, (Reason.BAD_METADATA,)),
    "jpeg and garbage": (picture("JPEG") + b"garbage", (6, 8, 3), RED, ()),
    "two jpegs in one file": (picture("JPEG") + picture("JPEG", WHITE), (6, 8, 3), RED, ()),
    "jpeg with a preview behind it": (frames("MPO", RED, WHITE), (6, 8, 3), RED, ()),
    "jpeg of one pixel": (picture("JPEG", size=(1, 1)), (1, 1, 3), RED, ()),
    "png": (picture("PNG"), (6, 8, 3), RED, ()),
    "png of one pixel": (picture("PNG", size=(1, 1)), (1, 1, 3), RED, ()),
    "png as narrow as is allowed": (picture("PNG", size=(1, 200)), (200, 1, 3), RED, ()),
    "webp": (picture("WEBP"), (6, 8, 3), RED, ()),
    "webp, lossless": (picture("WEBP", lossless=True), (6, 8, 3), RED, ()),
    "gif": (picture("GIF"), (6, 8, 3), RED, ()),
    "bmp": (picture("BMP"), (6, 8, 3), RED, ()),
    "tiff": (picture("TIFF"), (6, 8, 3), RED, ()),
    "tiff, lzw": (picture("TIFF", compression="tiff_lzw"), (6, 8, 3), RED, ()),
    "tiff of CMYK": (saved(Image.new("CMYK", (8, 6), RED_INK), "TIFF"), (6, 8, 3), RED, ()),
    "tiff whose directories are a loop": (tiff_loop(), (6, 8, 3), WHITE, ()),
    "avif": (picture("AVIF"), (6, 8, 3), RED, ()),
    "heic": (heic(), (48, 64, 3), RED, ()),
    "animated gif": (frames("GIF", RED, WHITE), (6, 8, 3), RED, (Reason.FIRST_FRAME,)),
    "animated webp": (frames("WEBP", RED, WHITE), (6, 8, 3), RED, (Reason.FIRST_FRAME,)),
    "animated png": (frames("PNG", RED, WHITE), (6, 8, 3), RED, (Reason.FIRST_FRAME,)),
    "animated avif": (frames("AVIF", RED, WHITE), (6, 8, 3), RED, (Reason.FIRST_FRAME,)),
    "tiff of two pages": (frames("TIFF", RED, WHITE), (6, 8, 3), RED, (Reason.FIRST_FRAME,)),
    "tiff, second page broken": (with_header(tiff_loop(), 130, "<I", 9999), (6, 8, 3), WHITE, (Reason.FIRST_FRAME,)),
    "transparent": (saved(Image.new("RGBA", (8, 6), (0, 0, 0, 0)), "PNG"), (6, 8, 3), WHITE, ()),
    "half transparent": (saved(Image.new("RGBA", (8, 6), (0, 0, 0, 128)), "PNG"), (6, 8, 3), (127, 127, 127), ()),
    "grey with alpha": (saved(Image.new("LA", (8, 6), (0, 0)), "PNG"), (6, 8, 3), WHITE, ()),
    "transparent webp": (saved(Image.new("RGBA", (8, 6), (0, 0, 0, 0)), "WEBP"), (6, 8, 3), WHITE, ()),
    "palette": (saved(Image.new("RGB", (8, 6), RED).convert("P"), "PNG"), (6, 8, 3), RED, ()),
    "palette with a transparent colour": (palette_with_hole(), (6, 8, 3), WHITE, ()),
    "RGB with a transparent colour": (picture(transparency=RED), (6, 8, 3), WHITE, ()),
    "1 bit": (saved(ONE_BIT, "PNG"), (1, 2, 3), WHITE, ()),
    "16-bit grey png": (png16(DEEP), (6, 8, 3), WHITE, ()),
    "16-bit grey png, black": (png16(np.zeros((6, 8, 1), np.uint16)), (6, 8, 3), BLACK, ()),
    "16-bit grey and alpha png": (png16(np.repeat(DEEP, 2, 2)), (6, 8, 3), WHITE, ()),
    "16-bit RGB png": (png16(HUNDRED), (6, 8, 3), (100, 100, 100), ()),
    "16-bit RGBA png": (png16(np.repeat(FULL, 4, 2)), (6, 8, 3), WHITE, ()),
    "16-bit grey tiff": (tiff(DEEP), (6, 8, 3), WHITE, ()),
    "16-bit grey tiff, white is zero": (tiff(DEEP, white_is_zero=True), (6, 8, 3), BLACK, ()),
    "16-bit RGB tiff": (tiff(HUNDRED), (6, 8, 3), (100, 100, 100), ()),
    "float tiff up to 1": (tiff(np.full((6, 8, 1), 0.4, np.float32)), (6, 8, 3), (102, 102, 102), ()),
    "float tiff up to 255": (tiff(np.full((6, 8, 1), 80.0, np.float32)), (6, 8, 3), (80, 80, 80), ()),
    "float tiff up to 65535": (tiff(np.full((6, 8, 1), 25700.0, np.float32)), (6, 8, 3), (100, 100, 100), ()),
    "float tiff beyond": (tiff(stretched((6, 8), -9, 1e6, np.float32)), (6, 8, 3), BLACK, (Reason.RESCALED,)),
    "exif that cannot be read": (picture("PNG", exif=BROKEN_EXIF), (6, 8, 3), RED, (Reason.BAD_METADATA,)),
}

SOUNDS = {  # bytes, frames, how many more or fewer are right, rate, repairs
    "wav": (WAV, 1600, EXACT, 16000, ()),
    "float wav": (sound(subtype="FLOAT"), 1600, EXACT, 16000, ()),
    "24-bit wav": (sound(subtype="PCM_24"), 1600, EXACT, 16000, ()),
    "wav of 4 kHz": (sound(rate=4000), 400, EXACT, 4000, ()),
    "wav of 192 kHz": (sound(rate=192_000), 19_200, EXACT, 192_000, ()),
    "wav of 11,127 Hz": (sound(rate=11_127), 1112, EXACT, 11_127, ()),
    "wav of 8 channels": (written(tone(0.1, channels=8)), 1600, EXACT, 16000, ()),
    "wav of 1024 channels": (written(tone(0.1, channels=1024)), 1600, EXACT, 16000, ()),
    "wav of one frame": (written(np.ones(1)), 1, EXACT, 16000, (Reason.SILENT,)),
    "wav and garbage": (WAV + b"garbage", 1600, EXACT, 16000, ()),
    "silence": (written(np.zeros(1600)), 1600, EXACT, 16000, (Reason.SILENT,)),
    "direct current": (written(np.full(1600, 0.3)), 1600, EXACT, 16000, (Reason.SILENT,)),
    "a little over full scale": (written(tone(0.1, 1.5), subtype="FLOAT"), 1600, EXACT, 16000, ()),
    "far over full scale": (written(tone(0.1, 1e5), subtype="FLOAT"), 1600, EXACT, 16000, (Reason.RESCALED,)),
    "flac": (FLAC, 32_000, EXACT, 16000, ()),
    "flac that does not know its length": (without_length(FLAC), 32_000, EXACT, 16000, ()),
    "ogg": (sound("OGG"), 1600, EXACT, 16000, ()),
    "opus": (sound("OGG", subtype="OPUS"), 1600, EXACT, 16000, ()),
    "aiff": (sound("AIFF"), 1600, EXACT, 16000, ()),
    "mp3": (MP3, 160_000, EXACT, 16000, ()),
    "mp3 that begins in the middle": (MP3[1000:], 160_000, PADDING, 16000, ()),
    "mp3 with a tag": (tagged(MP3, b"\0\0\0\x32"), 160_000, EXACT, 16000, ()),
    "mp3 with a tag that lies a little": (tagged(MP3, b"\0\0\0\x10"), 160_000, PADDING, 16000, ()),
    "mp3 behind zeros": (bytes(3000) + MP3, 160_000, PADDING, 16000, ()),
    "m4a": (M4A, 24_000, PADDING, 48_000, ()),
    "m4a and garbage": (M4A + b"garbage", 24_000, PADDING, 48_000, ()),
    "aac": (track("adts", "aac"), 24_000, PADDING, 48_000, ()),
    "sound track of an mp4": (MP4, 24_000, PADDING, 48_000, ()),
    "sound track of an mkv": (MKV, 24_000, PADDING, 48_000, ()),
    "sound track of a webm": (WEBM, 24_000, EXACT, 48_000, ()),
    "sound track of a mov": (MOV, 24_000, EXACT, 48_000, ()),
}

TEXTS = {  # bytes, text, repairs
    "ascii": (b"a red ball", "a red ball", ()),
    "utf-8": ("ein großer Ball ☃".encode(), "ein großer Ball ☃", ()),
    "utf-8 with a byte order mark": ("ein Ball".encode("utf-8-sig"), "ein Ball", ()),
    "utf-16, little end first": (b"\xff\xfe" + "großer Ball".encode("utf-16-le"), "großer Ball", ()),
    "utf-16, big end first": (b"\xfe\xff" + "großer Ball".encode("utf-16-be"), "großer Ball", ()),
    "utf-32": ("großer Ball ☃ 𝄞".encode("utf-32"), "großer Ball ☃ 𝄞", ()),
    "NULs are left out": (b"a\0 ball\0", "a ball", ()),
    "outer white space is left out": (b"\n a ball \r\n", "a ball", ()),
    "10 MB": (b"abcdefgh" * 1_250_000, "abcdefgh" * 8192, (Reason.TOO_LONG,)),
}
CUT_BEHIND = {
    "gif": frames("GIF", RED, BLACK)[:-6],
    "apng": frames("PNG", RED, BLACK)[:-20],
    "tiff": frames("TIFF", RED, BLACK)[:-6],
}

REJECTS = {
    "image: no bytes": (IMAGE, b"", Reason.EMPTY),
    "image: png that says 30000 x 30000": (IMAGE, png_that_says(30_000, 30_000), Reason.DECODE_BOMB),
    "image: avif that says 8 x 30000": (IMAGE, behind(picture("AVIF"), b"ispe", 12, 30_000), Reason.DECODE_BOMB),
    "image: narrower than any encoder can take": (IMAGE, picture(size=(1, 201)), Reason.DECODE_BOMB),
    "image: flatter than any encoder can take": (IMAGE, picture(size=(201, 1)), Reason.DECODE_BOMB),
    "image: 100 MB of text": (IMAGE, png_with(b"zTXt", b"a\0\0" + inflating(100)), Reason.DECODE_BOMB),
    "image: 100 MB of profile": (IMAGE, png_with(b"iCCP", b"a\0\0" + inflating(100)), Reason.DECODE_BOMB),
    "image: cut jpeg": (IMAGE, photo()[:-40], Reason.DECODE_TRUNCATED),
    "image: jpeg without its end mark": (IMAGE, photo()[:-2], Reason.DECODE_TRUNCATED),
    "image: cut jpeg of CMYK": (IMAGE, photo(mode="CMYK")[:-40], Reason.DECODE_TRUNCATED),
    "image: damaged jpeg": (IMAGE, with_header(photo((256, 256)), 2500, ">I", 0x5A5A5A5A), Reason.DECODE_FAILED),
    "image: cut png": (IMAGE, picture(size=(64, 64))[:-30], Reason.DECODE_TRUNCATED),
    "image: cut webp": (IMAGE, photo(kind="WEBP")[:-100], Reason.DECODE_FAILED),
    "image: cut gif": (IMAGE, photo(kind="GIF")[:-100], Reason.DECODE_TRUNCATED),
    "image: cut bmp": (IMAGE, photo(kind="BMP")[:-100], Reason.DECODE_TRUNCATED),
    "image: cut tiff": (IMAGE, tiff(HUNDRED)[:-100], Reason.DECODE_TRUNCATED),
    "image: cut avif": (IMAGE, photo(kind="AVIF")[:-100], Reason.DECODE_TRUNCATED),
    "image: half an avif": (IMAGE, photo(kind="AVIF")[:300], Reason.UNSUPPORTED),
    "image: cut animated webp": (IMAGE, frames("WEBP", RED, BLACK)[:-20], Reason.DECODE_FAILED),
    "image: cut animated avif": (IMAGE, frames("AVIF", RED, BLACK)[:-20], Reason.UNSUPPORTED),
    "image: cut compressed tiff": (
        IMAGE,
        photo(kind="TIFF", compression="tiff_deflate")[:-100],
        Reason.DECODE_FAILED,
    ),
    "image: cut heic": (IMAGE, heic()[:-20], Reason.DECODE_FAILED),
    "image: png cut in its header": (IMAGE, picture()[:40], Reason.DECODE_FAILED),
    "image: jpeg cut in its header": (IMAGE, picture("JPEG")[:20], Reason.DECODE_FAILED),
    "image: tiff of floats in colour": (IMAGE, tiff(np.zeros((6, 8, 3), np.float32)), Reason.DECODE_FAILED),
    "image: text named .jpg": (IMAGE, b"not a picture at all", Reason.UNSUPPORTED),
    "image: a page of HTML": (IMAGE, b"<!doctype html><html><body>404</body></html>", Reason.UNSUPPORTED),
    "image: postscript is never run": (IMAGE, b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", Reason.UNSUPPORTED),
    "image: a PDF": (IMAGE, b"%PDF-1.7\n1 0 obj\n", Reason.UNSUPPORTED),
    "image: JPEG XL": (IMAGE, b"\xff\x0a\xfa\x7f" + bytes(50), Reason.UNSUPPORTED),
    "image: a sound": (IMAGE, WAV, Reason.UNSUPPORTED),
    "image: a video": (IMAGE, MP4, Reason.UNSUPPORTED),
    "image: NaN pixels": (IMAGE, tiff(np.full((2, 2, 1), np.nan, np.float32)), Reason.NONFINITE_INPUT),
    "audio: no bytes": (AUDIO, b"", Reason.EMPTY),
    "audio: no frames": (AUDIO, written(np.zeros(0)), Reason.EMPTY),
    "audio: ogg without frames": (AUDIO, written(np.zeros(0), "OGG"), Reason.EMPTY),
    "audio: only a header": (AUDIO, WAV[:12], Reason.DECODE_TRUNCATED),
    "audio: cut wav": (AUDIO, WAV[:-400], Reason.DECODE_TRUNCATED),
    "audio: wav that says 4 GB": (AUDIO, with_header(WAV, 4, "<I", 0xFFFFFFF0), Reason.DECODE_TRUNCATED),
    "audio: cut ogg": (AUDIO, OGG[:-200], Reason.DECODE_TRUNCATED),
    "audio: ogg cut in its last byte": (AUDIO, OGG[:-1], Reason.DECODE_TRUNCATED),
    "audio: ogg cut in its last page's header": (AUDIO, OGG[: OGG.rfind(b"OggS") + 20], Reason.DECODE_TRUNCATED),
    "audio: cut flac": (AUDIO, FLAC[:-2000], Reason.DECODE_FAILED),
    "audio: flac that says twice its frames": (AUDIO, with_header(FLAC, 22, ">I", 64_000), Reason.DECODE_TRUNCATED),
    "audio: flac that says 2^36 frames": (AUDIO, claiming_everything(FLAC), Reason.TOO_LONG),
    "audio: cut mp3": (AUDIO, MP3[:-2000], Reason.DECODE_TRUNCATED),
    "audio: mp3 with a tag that lies a lot": (AUDIO, tagged(MP3, b"\x7f\x7f\x7f\x7f"), Reason.DECODE_FAILED),
    "audio: cut m4a": (AUDIO, M4A[:-1], Reason.DECODE_TRUNCATED),
    "audio: cut aac": (AUDIO, track("adts", "aac")[:-100], Reason.DECODE_FAILED),
    "audio: half an mp4": (AUDIO, MP4[: len(MP4) // 2], Reason.DECODE_TRUNCATED),
    "audio: cut mkv": (AUDIO, MKV[:-1], Reason.DECODE_TRUNCATED),
    "audio: cut webm": (AUDIO, WEBM[:-1], Reason.DECODE_TRUNCATED),
    "audio: cut mov": (AUDIO, MOV[:-1], Reason.DECODE_TRUNCATED),
    "audio: mp4 that says 268 million samples": (AUDIO, behind(MP4, b"stsz", 12, 0xFFFFFFF), Reason.DECODE_FAILED),
    "audio: mp4 that says 268 million times": (AUDIO, behind(MP4, b"stts", 8, 0xFFFFFFF), Reason.DECODE_FAILED),
    "audio: a video without sound": (AUDIO, track("mp4", None, video="mpeg4"), Reason.UNSUPPORTED),
    "audio: NaN": (AUDIO, written(np.full(50, np.nan), subtype="FLOAT"), Reason.NONFINITE_INPUT),
    "audio: infinite": (AUDIO, written(np.full(50, np.inf), subtype="FLOAT"), Reason.NONFINITE_INPUT),
    "audio: 1 Hz": (AUDIO, with_header(WAV, 24, "<I", 1), Reason.BAD_SAMPLE_RATE),
    "audio: 1 MHz": (AUDIO, with_header(WAV, 24, "<I", 1_000_000), Reason.BAD_SAMPLE_RATE),
    "audio: longer than half an hour": (AUDIO, written(np.zeros(4000 * 1801), "FLAC", rate=4000), Reason.TOO_LONG),
    "audio: text named .wav": (AUDIO, b"not a sound at all", Reason.UNSUPPORTED),
    "audio: a playlist is never followed": (AUDIO, b"#EXTM3U\n#EXTINF:9,\nfile:///etc/passwd\n", Reason.UNSUPPORTED),
    "audio: a picture": (AUDIO, picture(), Reason.UNSUPPORTED),
    "text: no bytes": (TEXT, b"", Reason.EMPTY),
    "text: white space": (TEXT, b" \n\t ", Reason.EMPTY),
    "text: only NULs": (TEXT, b"\0\0\0", Reason.EMPTY),
    "text: latin-1": (TEXT, "großer Ball".encode("latin-1"), Reason.BAD_TEXT),
    "text: half a utf-16 character": (TEXT, b"\xff\xfea", Reason.BAD_TEXT),
    "text: a lone surrogate in utf-8": (TEXT, b"a \xed\xa0\x80 ball", Reason.BAD_TEXT),
    "text: a lone surrogate in utf-16": (TEXT, b"\xff\xfe" + struct.pack("<2H", 0xD800, 0x61), Reason.BAD_TEXT),
    "text: a picture": (TEXT, picture(), Reason.BAD_TEXT),
}


@pytest.mark.parametrize(("data", "shape", "corner", "repairs"), IMAGES.values(), ids=IMAGES.keys())
def test_every_kind_of_image_becomes_rgb_on_white(data, shape, corner, repairs):
    decoded = decode(IMAGE, data)
    assert (decoded.value.shape, decoded.value.dtype, decoded.repairs) == (shape, np.uint8, repairs)
    assert decoded.value[0, 0].astype(int) == pytest.approx(corner, abs=LOSSY)


@pytest.mark.parametrize("data", CUT_BEHIND.values(), ids=CUT_BEHIND.keys())
def test_a_picture_whose_first_frame_is_whole_is_kept(data):
    decoded = decode(IMAGE, data)
    assert (decoded.value[0, 0].tolist(), decoded.repairs) == (list(RED), (Reason.FIRST_FRAME,))


def test_an_mp3_that_does_not_say_its_length_may_be_cut():
    assert len(decode(AUDIO, MP3[1000:-2000]).value.samples) < len(decode(AUDIO, MP3).value.samples)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_undone_in_every_format(kind, orientation):
    image = decode(IMAGE, sideways(orientation, kind)).value
    assert image.shape == (24, 16, 3)
    assert image[0, 0].astype(int) == pytest.approx(RED, abs=LOSSY)
    assert image[23, 15].astype(int) == pytest.approx(WHITE, abs=LOSSY)
    assert image[23, 0].astype(int) == pytest.approx(WHITE, abs=LOSSY)
    assert image[0, 15].astype(int) == pytest.approx(WHITE, abs=LOSSY)


@pytest.mark.parametrize(("data", "count", "slack", "rate", "repairs"), SOUNDS.values(), ids=SOUNDS.keys())
def test_every_kind_of_sound_becomes_one_channel_at_its_own_rate(data, count, slack, rate, repairs):
    decoded = decode(AUDIO, data)
    wave = decoded.value
    assert (wave.samples.ndim, wave.samples.dtype, wave.rate, decoded.repairs) == (1, np.float32, rate, repairs)
    assert len(wave.samples) == pytest.approx(count, abs=slack)


@pytest.mark.parametrize(("data", "text", "repairs"), TEXTS.values(), ids=TEXTS.keys())
def test_every_kind_of_text_becomes_a_str(data, text, repairs):
    decoded = decode(TEXT, data)
    assert (decoded.value, decoded.repairs) == (text, repairs)


@pytest.mark.parametrize(("modality", "data", "reason"), REJECTS.values(), ids=REJECTS.keys())
def test_what_cannot_be_decoded_is_rejected_with_its_reason(modality, data, reason):
    with pytest.raises(Rejected) as caught:
        decode(modality, data)
    assert caught.value.reason is reason
