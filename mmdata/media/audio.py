"""Sound to one channel of float32, at the rate it was recorded at."""

import io
import struct
from dataclasses import dataclass

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from mmdata.media import Decoded
from mmdata.types import Reason, Rejected

MAX_SECONDS = 1800
RATES = (4_000, 768_000)  # Hz
BLOCK = 65536  # frames read at once: what a header claims is never allocated
MISSING = 0.01  # share of the declared frames that may be missing


@dataclass(frozen=True, slots=True)
class Waveform:
    """`samples` is `(n,) float32`, one channel, at `rate` Hz."""

    samples: NDArray[np.float32]
    rate: int


def decode(data: bytes) -> Decoded:
    """A `Waveform`: channels are averaged. Whatever libsndfile reads: wav, flac, ogg, opus, mp3."""
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            if not RATES[0] <= file.samplerate <= RATES[1]:
                raise Rejected(Reason.BAD_SAMPLE_RATE, f"{file.samplerate} Hz is not within {RATES}")
            samples = _read(file, file.samplerate * MAX_SECONDS)
            declared, rate = file.frames, file.samplerate
    except soundfile.LibsndfileError as error:
        raise Rejected(_why(data), f"not a readable sound: {error.error_string}") from error
    if len(samples) < declared * (1 - MISSING) or _is_cut(data):
        raise Rejected(Reason.DECODE_TRUNCATED, f"{len(samples)} frames, more were declared")
    if len(samples) == 0:
        raise Rejected(Reason.EMPTY, "the sound has no frames")
    if not np.isfinite(samples).all():
        raise Rejected(Reason.NONFINITE_INPUT, "the sound has NaN or infinite samples")
    return Decoded(Waveform(samples, rate))


def resample(wave: Waveform, rate: int) -> NDArray[np.float32]:
    """`(n,) float32` at `rate` Hz."""
    if wave.rate == rate:
        return wave.samples
    resampled: NDArray[np.float32] = soxr.resample(wave.samples, wave.rate, rate).astype(np.float32)
    return resampled


def _read(file: soundfile.SoundFile, limit: int) -> NDArray[np.float32]:
    blocks, total = [], 0
    while len(block := file.read(BLOCK, dtype="float32", always_2d=True)):
        total += len(block)
        if total > limit:
            raise Rejected(Reason.TOO_LONG, f"longer than {MAX_SECONDS} seconds")
        blocks.append(block.mean(axis=1))
    return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)


def _why(data: bytes) -> Reason:
    known = (b"RIFF", b"fLaC", b"OggS", b"ID3", b"FORM", b"caff")
    return Reason.DECODE_FAILED if data.startswith(known) else Reason.UNSUPPORTED


def _is_cut(data: bytes) -> bool:
    """Containers that libsndfile reads to their early end without a word."""
    if data[:4] == b"RIFF" and len(data) > 8:
        declared = struct.unpack("<I", data[4:8])[0]
        return bool(declared != 0xFFFFFFFF and declared + 8 > len(data) + 1)
    if data[:4] == b"OggS":
        page = data[data.rfind(b"OggS") :]
        if len(page) < 27:  # bytes of a page's header: flags at 5, number of segments at 26, then their sizes
            return True
        last = bool(page[5] & 4)  # the last page carries the end-of-stream flag
        return not last or len(page) < 27 + page[26] + sum(page[27 : 27 + page[26]])
    return False
