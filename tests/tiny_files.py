"""Small real files of every kind, as bytes."""

import io
import tarfile

import numpy as np
import soundfile
from PIL import Image

from mmdata.storage.tar import END, header, padding

WHITE, RED = (255, 255, 255), (255, 0, 0)


def saved(image: Image.Image, kind: str, **options) -> bytes:
    sink = io.BytesIO()
    image.save(sink, kind, **options)
    return sink.getvalue()


def picture(kind: str = "PNG", colour=RED, size=(8, 6), **options) -> bytes:
    return saved(Image.new("RGB", size, colour), kind, **options)


def sound(kind: str = "WAV", *, hertz: float = 440, seconds: float = 0.1, rate: int = 16000, subtype=None) -> bytes:
    time = np.arange(int(seconds * rate)) / rate
    return written(np.sin(2 * np.pi * hertz * time) / 2, kind, rate=rate, subtype=subtype)


def written(samples, kind: str = "WAV", *, rate: int = 16000, subtype=None) -> bytes:
    sink = io.BytesIO()
    soundfile.write(sink, samples, rate, format=kind, subtype=subtype)
    return sink.getvalue()


def tar(*members: tuple[str, bytes]) -> bytes:
    blocks = [header(name, len(data)) + data + padding(len(data)) for name, data in members]
    return b"".join(blocks) + END


def library_tar(form: int, *members: tuple[str, bytes]) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=form) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return sink.getvalue()
