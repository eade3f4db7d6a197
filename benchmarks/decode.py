"""JPEG to RGB: `mmdata.media.decode` against Pillow, and scaled against whole: `python benchmarks/decode.py`.

The pictures are clouds of 1/f noise at quality 90, about as many bytes a pixel as photographs. Every round times every
side, and the fastest of the rounds counts. `features` is the cosine of what efficientnet-lite0 makes of an image
decoded scaled and of the whole one, both resized by the model's own preprocessing.
"""

import io
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmdata.encoders import describe, load_encoder
from mmdata.media import decode
from mmdata.types import Modality

MIN_SIDE = 224  # what ViT-B/32 resizes the shorter side to
MODEL_SIDE = 256  # what efficientnet-lite0 resizes it to
PICTURES = 16
ROUNDS = 9
OCTAVES = (4, 8, 16, 32, 64, 128)


def main() -> None:
    for size, repeats in (((256, 256), 6), ((640, 480), 3), ((1600, 1200), 1)):
        for progressive in (False, True):
            files = [_cloud(seed, size, progressive=progressive) for seed in range(PICTURES)]
            kind = "progressive" if progressive else "baseline"
            print(f"{size[0]} x {size[1]}, {kind}, {np.mean([len(file) for file in files]) / 1000:.0f} kB")
            for threads in (1, 2):
                _compare(files * repeats, threads)
    files = [_cloud(seed, (1600, 1200)) for seed in range(PICTURES)]
    for side in (MODEL_SIDE, 2 * MODEL_SIDE):
        print(f"features, 1600 x 1200, min_side {side}: cosine {_agreement(files, side):.5f}")


def _cloud(seed: int, size: tuple[int, int], **options: bool) -> bytes:
    rng = np.random.default_rng(seed)
    total = np.zeros((size[1], size[0], 3))
    for octave in OCTAVES:
        small = rng.integers(0, 256, (octave + 2, octave + 2, 3), np.uint8)
        total += np.asarray(Image.fromarray(small).resize(size, Image.Resampling.BICUBIC), float) / octave
    total = (total - total.min()) / (total.max() - total.min()) * 255
    sink = io.BytesIO()
    Image.fromarray(total.astype(np.uint8)).save(sink, "JPEG", quality=90, **options)
    return sink.getvalue()


def _by_pillow(data: bytes, min_side: int = 0) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data)) as image:
        if min_side:
            image.draft("RGB", (min_side, min_side))
        return np.asarray(image.convert("RGB"))


def _by_mmdata(data: bytes, min_side: int = 0) -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = decode(Modality.IMAGE, data, min_side=min_side).value
    return pixels


def _compare(files: list[bytes], threads: int) -> None:
    sides: dict[str, Callable[[bytes], NDArray[np.uint8]]] = {
        "Pillow": _by_pillow,
        "mmdata": _by_mmdata,
        "Pillow draft": partial(_by_pillow, min_side=MIN_SIDE),
        "mmdata min_side": partial(_by_mmdata, min_side=MIN_SIDE),
    }
    best = dict.fromkeys(sides, float("inf"))
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(ROUNDS):
            for name, side in sides.items():
                since = time.perf_counter()
                list(pool.map(side, files))
                best[name] = min(best[name], (time.perf_counter() - since) / len(files))
    figures = [f"{name} {best['Pillow'] / seconds:.2f} x ({1 / seconds:.0f}/s)" for name, seconds in best.items()]
    print(f"  {threads} thread{'s' * (threads > 1)}: {', '.join(figures)}", flush=True)


def _agreement(files: list[bytes], min_side: int) -> float:
    """The least cosine between the features of a scaled and of a whole image."""
    encoder = load_encoder(describe("efficientnet-lite0"))
    whole, scaled = (
        encoder.encode([encoder.prepare(_by_mmdata(file, side))[0].data for file in files]) for side in (0, min_side)
    )
    norms = np.linalg.norm(whole, axis=1) * np.linalg.norm(scaled, axis=1)
    return float((np.sum(whole * scaled, axis=1) / norms).min())


if __name__ == "__main__":
    main()
