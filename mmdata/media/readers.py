"""Two readers of sound files: libsndfile, and FFmpeg for m4a, aac and the sound track of a video."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from mmdata.types import Reason, Rejected

BLOCK = 1 << 18  # values read at once, over all channels: what a header claims is never allocated
UNKNOWN = (1 << 63) - 1  # libsndfile's number of frames where a stream does not tell
FORMATS = "mov,matroska,mp3,aac,flac,ogg,wav"  # none that opens other files, such as playlists
CODECS = "aac,aac_latm,ac3,alac,eac3,flac,mp2,mp2float,mp3,mp3float,opus,vorbis,pcm_alaw,pcm_mulaw,pcm_u8,pcm_s8"
DEEP = ",".join(f"pcm_{kind}{end}" for kind in ("s16", "s24", "s32", "f32", "f64") for end in ("le", "be"))
SAFE = {"format_whitelist": FORMATS, "codec_whitelist": f"{CODECS},{DEEP}", "protocol_whitelist": ""}
"""No decoder of video is among them, so that FFmpeg cannot decode a picture to learn about its stream."""
TRUE_DURATION = ("mov,mp4,m4a,3gp,3g2,mj2", "flac")  # containers whose duration is that of the sound, no estimate


class Unreadable(Exception):
    """This reader cannot read the file; another may."""


@dataclass(frozen=True, slots=True)
class Recording:
    """`blocks` are `(n, channels) float32` at `rate` Hz; `declared` frames, or 0 where the file does not tell."""

    rate: int
    declared: int
    blocks: Iterator[NDArray[np.float32]]


@contextmanager
def by_libsndfile(data: bytes) -> Iterator[Recording]:
    """wav, flac, ogg, opus, mp3 and the rarer ones."""
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            declared = 0 if file.frames == UNKNOWN else file.frames
            yield Recording(file.samplerate, declared, _blocks(file))
    except soundfile.LibsndfileError as error:
        raise Unreadable(error.error_string) from error


@contextmanager
def by_ffmpeg(data: bytes) -> Iterator[Recording]:
    """The first sound track. FFmpeg sees nothing but these bytes, and only through the formats of the table."""
    import av

    try:
        with av.open(io.BytesIO(data), options=SAFE, metadata_errors="replace") as container:
            if not container.streams.audio:
                raise Rejected(Reason.UNSUPPORTED, "there is no sound track")
            stream = container.streams.audio[0]
            if stream.codec_context is None:
                raise Rejected(Reason.UNSUPPORTED, f"no decoder for the sound track; there is one for {CODECS}")
            declared = 0
            if container.format.name in TRUE_DURATION and stream.duration and stream.time_base:
                declared = int(stream.duration * stream.time_base * stream.rate)
            yield Recording(stream.rate, declared, _frames(container.decode(stream)))
    except (av.FFmpegError, ValueError) as error:
        raise Unreadable(str(error)) from error


def _blocks(file: Any) -> Iterator[NDArray[np.float32]]:
    while len(block := file.read(max(1, BLOCK // file.channels), dtype="float32", always_2d=True)):
        yield block


def _frames(frames: Iterator[Any]) -> Iterator[NDArray[np.float32]]:
    import av

    plain = av.AudioResampler(format="fltp")  # only the kind of number is changed; a change of rate is an error
    for frame in frames:
        for part in plain.resample(frame):
            yield part.to_ndarray().T
