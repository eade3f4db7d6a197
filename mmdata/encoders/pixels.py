"""The way of a picture to a model's input: resize and crop on bytes here, scale on the device.

What a library does to a picture is a resize, a crop at the centre and a normalisation, in nearly every case. Done on
bytes without a detour over PIL that costs a fifth of the time, and a quarter of the memory until the batch is on its
device (figures in docs/decisions.md). Whether it is the same is not believed but tried, when the model is loaded.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms.v2 import InterpolationMode, functional

Transform = Callable[[NDArray[np.uint8]], Any]
PROBES = ((480, 640), (301, 40), *((40, n) for n in range(41, 49)), *((n, 40) for n in range(41, 49)))
"""Heights and widths: larger and smaller than a crop, and with every remainder of its two margins."""
ROUNDING = 2.01  # of 255: PIL and torch both round twice; 0.7 % of all bytes differ, by 1, and 1 in 100,000 by 2


@dataclass(frozen=True, slots=True)
class Preparation:
    """`transform` makes the input of one picture; where that is bytes, `scale` (mean and std, of 255) makes floats."""

    transform: Transform
    scale: tuple[tuple[float, ...], tuple[float, ...]] | None = None


@dataclass(frozen=True, slots=True)
class Steps:
    """A resize (the shorter side, or height and width), a crop at the centre, and a normalisation, of 255."""

    resize: list[int]
    crop: list[int] | None
    interpolation: InterpolationMode
    mean: tuple[float, ...]
    std: tuple[float, ...]
    floor: bool = False  # an odd margin: transformers rounds its half down, torchvision to the even number

    def apply(self, value: NDArray[np.uint8]) -> torch.Tensor:
        """`(height, width, 3) uint8` to `(3, h, w) uint8`."""
        pixels = torch.from_numpy(value if value.flags.writeable else value.copy()).permute(2, 0, 1)
        resized: torch.Tensor = functional.resize(pixels, self.resize, self.interpolation, antialias=True)
        return resized if self.crop is None else self._centre(resized, self.crop)

    def _centre(self, pixels: torch.Tensor, size: list[int]) -> torch.Tensor:
        below, beside = (max(0, wanted - there) for wanted, there in zip(size, pixels.shape[1:], strict=True))
        if below or beside:
            pixels = functional.pad(pixels, [beside // 2, below // 2, (beside + 1) // 2, (below + 1) // 2])
        margins = [there - wanted for wanted, there in zip(size, pixels.shape[1:], strict=True)]
        top, left = (margin // 2 if self.floor else round(margin / 2) for margin in margins)
        return pixels[:, top : top + size[0], left : left + size[1]]


def preparation(library: Callable[[Image.Image], Any], steps: Steps | None) -> Preparation:
    """`steps` where they do what the library does, else the library itself."""
    if steps is not None and _same(library, steps):
        return Preparation(steps.apply, (steps.mean, steps.std))
    return Preparation(lambda value: library(Image.fromarray(value)))


def _same(library: Callable[[Image.Image], Any], steps: Steps) -> bool:
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (steps.mean, steps.std))
    for size in PROBES:
        picture = np.random.default_rng(0).integers(64, 192, (*size, 3), dtype=np.uint8)  # bicubic clips none
        wanted, found = library(Image.fromarray(picture)), steps.apply(picture)
        if wanted.shape != found.shape or ((wanted * std + mean) - found).abs().max() > ROUNDING:
            return False
    return True


def steps_of(transforms: Any) -> Steps | None:
    """What a Compose of torchvision's Resize, CenterCrop and Normalize does; None where it has others."""
    by_name = {type(step).__name__: step for step in transforms.transforms}
    if not {"Resize", "Normalize"} <= by_name.keys():
        return None
    resize, crop, scale = by_name["Resize"], by_name.get("CenterCrop"), by_name["Normalize"]
    return Steps(
        resize=[resize.size] if isinstance(resize.size, int) else list(resize.size),
        crop=list(crop.size) if crop else None,
        interpolation=resize.interpolation,
        mean=tuple(255 * float(value) for value in scale.mean),
        std=tuple(255 * float(value) for value in scale.std),
    )
