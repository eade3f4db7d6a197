"""Odd, rare, broken and lying files, made with real encoders and then changed by hand where none would write them."""

import io
import struct
import zlib

import av
import numpy as np
import pillow_heif
import simplejpeg
from PIL import Image
from tiny_files import RED, WHITE, picture, saved, written

TURNED = {  # what an orientation has to undo
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def with_header(data: bytes, at: int, form: str, value: int) -> bytes:
    changed = bytearray(data)
    struct.pack_into(form, changed, at, value)
    return bytes(changed)


def behind(data: bytes, mark: bytes, offset: int, value: int) -> bytes:
    """Another 32-bit number, big end first, `offset` bytes behind the last place of `mark`."""
    return with_header(data, data.rfind(mark) + offset, ">I", value)


def photo(size=(64, 48), kind: str = "JPEG", mode: str = "RGB", **options) -> bytes:
    """Smooth colours with an edge in them, which lossy codecs and scaling treat as they treat photographs."""
    width, height = size
    y, x = np.mgrid[:height, :width]
    channels = [128 + 120 * np.sin(x / width * 5 + k) * np.cos(y / height * 4 - k) for k in range(3)]
    pixels = np.stack(channels, axis=-1)
    pixels[height // 3 : height // 2, width // 4 : width // 2] = (250, 30, 60)
    return saved(Image.fromarray(pixels.astype(np.uint8)).convert(mode), kind, **options)


def sideways(orientation: int, kind: str = "PNG", **options) -> bytes:
    """16 x 24 pixels whose top left quarter is red once the orientation is undone."""
    upright = Image.new("RGB", (16, 24), WHITE)
    upright.paste(RED, (0, 0, 8, 12))
    turn = TURNED[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(upright.transpose(turn) if turn is not None else upright, kind, exif=exif, **options)


def heic(size=(64, 48), colour=RED) -> bytes:
    sink = io.BytesIO()
    pillow_heif.from_pillow(Image.new("RGB", size, colour)).save(sink, quality=90)
    return sink.getvalue()


def palette_with_hole() -> bytes:
    image = Image.new("P", (8, 6), 0)
    image.putpalette([*RED, 0, 0, 255])
    return saved(image, "PNG", transparency=0)


def frames(kind: str, *colours, **options) -> bytes:
    first, *rest = [Image.new("RGB", (8, 6), colour) for colour in colours]
    return saved(first, kind, save_all=True, append_images=rest, **options)


def cmyk(ink, **options) -> bytes:
    """A CMYK JPEG the way Adobe writes it: inverted, and saying so in its APP14 segment."""
    return saved(Image.new("CMYK", (8, 6), ink), "JPEG", **options)


def cmyk_without_adobe(ink) -> bytes:
    """Not inverted, and without the segment."""
    data = cmyk(tuple(255 - value for value in ink))
    at = data.index(b"\xff\xee")
    return data[:at] + data[at + 2 + struct.unpack(">H", data[at + 2 : at + 4])[0] :]


def ycck(ink) -> bytes:
    inverted = np.full((6, 8, 4), [255 - value for value in ink], np.uint8)
    return simplejpeg.encode_jpeg(inverted, quality=100, colorspace="CMYK")


def ink_profile() -> bytes:
    """An ICC profile (version 2, one lut8 table) in which every ink is the same middle grey: L* = 50."""
    ramp, lab = bytes(range(256)), bytes([128, 128, 128])
    identity = struct.pack(">9i", *[65536 * (at in (0, 4, 8)) for at in range(9)])
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + identity + ramp * 4 + lab * 16 + ramp * 3
    white = b"XYZ \0\0\0\0" + struct.pack(">3I", 0xF6D6, 0x10000, 0xD32D)
    tags = [(b"A2B0", table), (b"wtpt", white)]
    at = 128 + 4 + 12 * len(tags)
    index, body = b"", b""
    for name, data in tags:
        index += name + struct.pack(">II", at + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(">I4sI", at + len(body), b"\0\0\0\0", 0x02400000) + b"prtrCMYKLab "
    head = head.ljust(36, b"\0") + b"acsp"
    head = head.ljust(68, b"\0") + struct.pack(">3I", 0xF6D6, 0x10000, 0xD32D)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + index + body


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png16(values: np.ndarray) -> bytes:
    """`(h, w, 1 to 4) uint16` to a PNG of 16 bits a channel, which Pillow reads and does not write."""
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def png_with(kind: bytes, data: bytes) -> bytes:
    """A small PNG with another chunk behind its header."""
    whole = picture()
    return whole[:33] + chunk(kind, data) + whole[33:]


def png_that_says(width: int, height: int) -> bytes:
    return picture()[:8] + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) + picture()[33:]


def inflating(megabytes: int) -> bytes:
    return zlib.compress(bytes(megabytes << 20), 9)


def tiff(values: np.ndarray, *, white_is_zero: bool = False) -> bytes:
    """`(h, w, 1 or 3)` of 16-bit integers or floats to a TIFF without compression."""
    height, width, channels = values.shape
    data = values.astype(values.dtype.newbyteorder("<")).tobytes()
    shorts = 8 + 2 + 12 * 10 + 4  # where the two lists of one short a channel stand
    bits, form = 8 * values.dtype.itemsize, 3 if values.dtype.kind == "f" else 1
    kind = 2 if channels == 3 else int(not white_is_zero)
    listed = [bits, form] if channels == 1 else [shorts, shorts + 2 * channels]
    tags = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, channels, listed[0]),
        (259, 3, 1, 1),
        (262, 3, 1, kind),
        (273, 4, 1, shorts + 4 * channels),
        (277, 3, 1, channels),
        (278, 4, 1, height),
        (279, 4, 1, len(data)),
        (339, 3, channels, listed[1]),
    ]
    fields = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    tail = struct.pack(f"<I{2 * channels}H", 0, *[bits] * channels, *[form] * channels)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + fields + tail + data


def tiff_loop() -> bytes:
    """A TIFF whose first directory names itself as the next one."""
    return with_header(tiff(np.full((6, 8, 1), 65535, np.uint16)), 8 + 2 + 12 * 10, "<I", 8)


def stretched(shape, low: float, high: float, dtype) -> np.ndarray:
    """`(h, w, 1)` that rises from `low`, top left, to `high`, bottom right."""
    return np.linspace(low, high, shape[0] * shape[1]).astype(dtype).reshape(*shape, 1)


def without_length(flac: bytes) -> bytes:
    """STREAMINFO's 36 bits of total frames set to 0: not known, as written to a pipe."""
    return with_header(with_header(flac, 21, "B", flac[21] & 0xF0), 22, ">I", 0)


def claiming_everything(flac: bytes) -> bytes:
    return with_header(with_header(flac, 21, "B", flac[21] | 0x0F), 22, ">I", 0xFFFFFFFF)


def track(container: str, codec: str | None, *, video: str | None = None, seconds: float = 0.5, **options) -> bytes:
    """A tone of 48 kHz in stereo, at half of full scale, in a container of FFmpeg, beside a video of 10 frames."""
    sink = io.BytesIO()
    with av.open(sink, "w", format=container, options=options) as out:
        streams = []
        if video:
            streams.append(out.add_stream(video, rate=10, width=64, height=48, pix_fmt="yuv420p"))
        if codec:
            streams.append(out.add_stream(codec, rate=48_000, layout="stereo"))
        for stream in streams:
            stream.codec_context.open()
        for stream in streams:
            for frame in _pictures() if stream.type == "video" else _tone(stream, int(seconds * 48_000)):
                out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
    return sink.getvalue()


def _pictures():
    for number in range(10):
        frame = av.VideoFrame(64, 48, "yuv420p")
        frame.pts = number
        yield frame


def _tone(stream, count: int):
    tone = np.sin(np.arange(count) / 20).astype(np.float32) / 2
    frame = av.AudioFrame.from_ndarray(np.stack([tone, tone]), format="fltp", layout="stereo")
    frame.sample_rate, frame.pts = 48_000, 0
    size = stream.codec_context.frame_size or 1024
    resampler = av.AudioResampler(format=stream.format, layout="stereo", rate=48_000, frame_size=size)
    yield from [*resampler.resample(frame), *resampler.resample(None)]


def tagged(mp3: bytes, size: bytes) -> bytes:
    """An ID3v2 tag of 50 bytes before an MP3; `size` is what its header says, 7 bits a byte."""
    return b"ID3\x03\0\0" + size + bytes(50) + mp3


def tone(seconds: float = 2.0, amplitude: float = 0.5, rate: int = 16_000, channels: int = 1) -> np.ndarray:
    wave = amplitude * np.sin(np.arange(int(seconds * rate)) / 20)
    return np.repeat(wave[:, None], channels, axis=1)


def mp3(seconds: float = 10.0) -> bytes:
    """Noise, so that its frames are full."""
    return written(np.random.default_rng(0).uniform(-0.5, 0.5, int(16_000 * seconds)), "MP3")
