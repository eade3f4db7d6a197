"""Image models of torchvision, with its weights or with a file: `torchvision:resnet50/FILE.safetensors`."""

from pathlib import Path
from typing import Any

from mmdata.encoders import Encoder, Request
from mmdata.encoders.weights import check, hash_tensors, load_state
from mmdata.errors import ConfigError, ModelError
from mmdata.storage.receipts import versions
from mmdata.types import EncoderCard, Modality


def describe(name: str, tower: str, request: Request) -> EncoderCard:
    """The card of a torchvision model; the classifier's last layer is left away."""
    model, dim, transform = _model(name)
    digest = hash_tensors(model)
    return EncoderCard(
        modality=Modality.IMAGE,
        dim=dim,
        space=f"torchvision:{name.partition('/')[0]}@{digest[:12]}",
        preprocessing={"transform": repr(transform)},
        revision=name.partition("/")[2] or "DEFAULT",
        weights_sha256=digest,
        versions=versions("torch", "torchvision"),
    )


def load(card: EncoderCard, device: str) -> Encoder:
    """Build the model with the transform that belongs to its weights."""
    from mmdata.encoders.image import ImageEncoder
    from mmdata.encoders.pixels import Steps, preparation

    model, _, transform = _model(card.spec.removeprefix("torchvision:"))
    check(hash_tensors(model), card.weights_sha256, card.spec)
    steps = Steps(
        resize=transform.resize_size,
        crop=transform.crop_size * 2,  # it is one side of a square
        interpolation=transform.interpolation,
        mean=tuple(255 * value for value in transform.mean),
        std=tuple(255 * value for value in transform.std),
    )
    return ImageEncoder(card, model, preparation(transform, steps), lambda pixels: (model(pixels), []), device)


def _model(name: str) -> tuple[Any, int, Any]:
    from pickle import UnpicklingError

    from safetensors import SafetensorError
    from torchvision import models

    arch, _, file = name.partition("/")
    if arch not in models.list_models(module=models):
        raise ConfigError(f"torchvision has no image model {arch!r}; torchvision.models.list_models() names them")
    default = models.get_model_weights(arch).DEFAULT
    try:
        model = models.get_model(arch, weights=None if file else default)
        if file:
            model.load_state_dict(load_state(Path(file)))
    except (OSError, RuntimeError, UnpicklingError, SafetensorError) as error:
        raise ModelError(f"torchvision:{name} cannot be loaded: {error}") from error
    return *_headless(model, name), default.transforms()


def _headless(model: Any, name: str) -> tuple[Any, int]:
    """The model without its last linear layer, and how many values reach that layer."""
    import torch

    linear = [(path, m) for path, m in model.named_modules() if isinstance(m, torch.nn.Linear)]
    if not linear:
        raise ModelError(f"torchvision:{name} has no linear layer to leave away")
    path, last = linear[-1]
    parent, _, child = path.rpartition(".")
    setattr(model.get_submodule(parent), child, torch.nn.Identity())
    return model.eval(), last.in_features
