"""Sound to one channel of float32, at the rate it was recorded at."""

from dataclasses import dataclass

import numpy as np
import soxr
from numpy.typing import NDArray

from mmdata.media import Decoded, Wish
from mmdata.media.cut import BOXES, EBML, is_cut
from mmdata.media.readers import Recording, Unreadable, by_ffmpeg, by_libsndfile
from mmdata.types import Reason, Rejected

MAX_SECONDS = 1800
MAX_FRAMES = 100_000_000  # 400 MB of float32: 35 minutes at 48 kHz, 17 at 96 kHz
RATES = (4_000, 768_000)  # Hz
MISSING = 0.01  # share of the declared frames that may be missing
MAX_AMPLITUDE = 4  # of full scale: lossy codecs overshoot and masters in floats do too, but not by more than 12 dB
READERS = (by_libsndfile, by_ffmpeg)
SOUNDS = (b"RIFF", b"fLaC", b"OggS", b"ID3", b"FORM", b"caff", EBML, b"\xff\xf1", b"\xff\xf9", b"\xff\xfb", b"\xff\xf3")


@dataclass(frozen=True, slots=True)
class Waveform:
    """`samples` is `(n,) float32`, one channel, at `rate` Hz."""

    samples: NDArray[np.float32]
    rate: int


def decode(data: bytes, _: Wish) -> Decoded:
    """A `Waveform`: channels are averaged. wav, flac, ogg, opus, mp3, m4a, aac, and the sound track of a video."""
    if is_cut(data):
        raise Rejected(Reason.DECODE_TRUNCATED, "the end of the file is missing")
    wave = _read(data)
    if len(wave.samples) == 0:
        raise Rejected(Reason.EMPTY, "the sound has no frames")
    low, high = float(wave.samples.min()), float(wave.samples.max())
    if not np.isfinite([low, high]).all():
        raise Rejected(Reason.NONFINITE_INPUT, "the sound has NaN or infinite samples")
    if low == high:
        return Decoded(wave, (Reason.SILENT,))
    if max(-low, high) > MAX_AMPLITUDE:
        return Decoded(Waveform(wave.samples / np.float32(max(-low, high)), wave.rate), (Reason.RESCALED,))
    return Decoded(wave)


def resample(wave: Waveform, rate: int) -> NDArray[np.float32]:
    """`(n,) float32` at `rate` Hz."""
    if wave.rate == rate:
        return wave.samples
    resampled: NDArray[np.float32] = soxr.resample(wave.samples, wave.rate, rate).astype(np.float32)
    return resampled


def _read(data: bytes) -> Waveform:
    """By the first reader that can."""
    problem = ""
    for reader in READERS:
        try:
            with reader(data) as recording:
                return Waveform(_mixed(recording), recording.rate)
        except Unreadable as error:
            problem = str(error)
    is_sound = data.startswith(SOUNDS) or data[4:8] in BOXES
    raise Rejected(Reason.DECODE_FAILED if is_sound else Reason.UNSUPPORTED, f"not a readable sound: {problem}")


def _mixed(recording: Recording) -> NDArray[np.float32]:
    if not RATES[0] <= recording.rate <= RATES[1]:
        raise Rejected(Reason.BAD_SAMPLE_RATE, f"{recording.rate} Hz is not within {RATES}")
    limit = min(MAX_FRAMES, recording.rate * MAX_SECONDS)
    too_long = f"limit {limit} frames: {MAX_SECONDS} seconds or {MAX_FRAMES} frames"
    if recording.declared > limit:
        raise Rejected(Reason.TOO_LONG, f"{recording.declared} frames declared, {too_long}")
    mono, total = [], 0
    for block in recording.blocks:
        total += len(block)
        if total > limit:
            raise Rejected(Reason.TOO_LONG, f"{total} frames and more, {too_long}")
        mono.append(sum(block.T) / np.float32(block.shape[1]))  # `mean` over so short an axis takes ten times as long
    if total < recording.declared * (1 - MISSING):
        raise Rejected(Reason.DECODE_TRUNCATED, f"{total} frames of {recording.declared} declared")
    return np.concatenate(mono) if mono else np.zeros(0, np.float32)
