"""The pictures of transformers: from a folder to an ImageEncoder."""

from pathlib import Path
from typing import Any

from PIL import Image
from torchvision.transforms.v2 import InterpolationMode
from transformers import AutoImageProcessor
from transformers.image_utils import pil_torch_interpolation_mapping

from mmdata.encoders import Encoder
from mmdata.encoders.hf import load_model, own
from mmdata.encoders.image import ImageEncoder, Seen
from mmdata.encoders.pixels import Steps, preparation
from mmdata.types import EncoderCard

UNCROPPED = 384  # from this side on ConvNeXt's processor resizes without a crop


def load_image(card: EncoderCard, folder: Path, device: str) -> Encoder:
    """The image encoder in a model folder."""
    model = load_model(folder, device)
    processor = own(AutoImageProcessor, folder)
    pooling = card.preprocessing["pooling"]

    def library(image: Image.Image) -> Any:
        inputs = {name: rows[0] for name, rows in processor(images=image, return_tensors="pt").items()}
        return inputs if len(inputs) > 1 else inputs["pixel_values"]

    def forward(inputs: Any) -> Seen:
        named = inputs if isinstance(inputs, dict) else {"pixel_values": inputs}
        output = model.get_image_features(**named) if pooling == "projection" else model(**named)
        states = output.last_hidden_state
        vectors = states[:, 0] if pooling == "cls" else output.pooler_output
        return vectors, _maps(states, named) if card.tokens else []

    return ImageEncoder(card, model, preparation(library, _steps(processor)), forward, device)


def _steps(processor: Any) -> Steps | None:
    """What most processors do; whether this one does is tried by `preparation`."""
    resize, crop = _sizes(processor)
    if not (resize and processor.do_resize and processor.do_rescale and processor.do_normalize):
        return None
    unit = processor.rescale_factor
    return Steps(
        resize=resize,
        crop=crop,
        interpolation=_interpolation(processor.resample),
        mean=tuple(value / unit for value in processor.image_mean),
        std=tuple(value / unit for value in processor.image_std),
        floor=True,
    )


def _sizes(processor: Any) -> tuple[list[int], list[int] | None]:
    """To what it resizes, nothing where that depends on the picture, and what it crops to, if it does."""
    size, crop = processor.size or {}, processor.crop_size if processor.do_center_crop else None
    shorter, share = size.get("shortest_edge"), getattr(processor, "crop_pct", None)
    if shorter and share:
        return ([int(shorter / share)], [shorter, shorter]) if shorter < UNCROPPED else ([shorter, shorter], None)
    resize = [shorter] if shorter else [size[side] for side in ("height", "width") if size.get(side)]
    return resize, [crop["height"], crop["width"]] if crop else None


def _interpolation(resample: Any) -> InterpolationMode:
    return resample if isinstance(resample, InterpolationMode) else pil_torch_interpolation_mapping[resample]


def _maps(states: Any, inputs: dict[str, Any]) -> Any:
    """Maps `(dim, height, width)` of the last states: maps already, or a sequence that ends in the patches."""
    if states.ndim == 4:
        return states
    if "spatial_shapes" in inputs:  # each picture has a grid of its own, and padding behind it
        sizes = inputs["spatial_shapes"].tolist()
        return [row[: h * w].T.unflatten(1, (h, w)) for row, (h, w) in zip(states, sizes, strict=True)]
    height, width = inputs["pixel_values"].shape[-2:]
    ratio = height / width
    side = round((states.shape[1] * ratio) ** 0.5)  # the few tokens before the patches are fewer than a row
    columns = round(side / ratio)
    return states[:, -side * columns :].transpose(1, 2).unflatten(2, (side, columns))
