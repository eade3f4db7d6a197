"""Image models of torchvision, with its weights or with a file: `torchvision:resnet50/FILE.safetensors`."""

from functools import partial
from math import isqrt
from pathlib import Path
from typing import Any

from mmdata.encoders import Encoder, Request
from mmdata.encoders.weights import check, hash_tensors, load_state
from mmdata.errors import ConfigError, ModelError
from mmdata.storage.receipts import versions
from mmdata.types import EncoderCard, Modality

POOLINGS = ("avgpool", "adaptive_avg_pool2d", "mean")
"""What torchvision calls the step from patches to one vector; a vision transformer has none."""


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
        token_dim=_token_dim(model, transform) if request.tokens else 0,
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
    seen = _with_maps(model) if card.tokens else model
    forward = partial(_see_maps if card.tokens else _see, seen)
    return ImageEncoder(card, seen, preparation(transform, steps), forward, device)


def _with_maps(model: Any) -> Any:
    """The model that also gives what its pooling pools."""
    from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

    names = get_graph_node_names(model)[1]
    return create_feature_extractor(model, {_before_pooling(names): "maps", names[-1]: "vectors"}).eval()


def _see(model: Any, pixels: Any) -> Any:
    return model(pixels), []


def _see_maps(model: Any, pixels: Any) -> Any:
    """Vectors and maps `(n, dim, height, width)`."""
    found = model(pixels)
    maps = found["maps"]
    if maps.ndim == 3:  # the class token, then patches
        maps = maps[:, 1:].transpose(1, 2).unflatten(2, (isqrt(maps.shape[1] - 1), -1))
    return found["vectors"], maps


def _before_pooling(names: list[str]) -> str:
    """The last step over patches; empty where torchvision has no name for it."""
    pools = [place for place, name in enumerate(names) if name in POOLINGS]
    return "encoder.ln" if "encoder.ln" in names else names[pools[0] - 1] if pools else ""


def _token_dim(model: Any, transform: Any) -> int:
    import torch
    from torchvision.models.feature_extraction import get_graph_node_names

    if not _before_pooling(get_graph_node_names(model)[1]):
        return 0
    with torch.inference_mode():
        _, maps = _see_maps(_with_maps(model), torch.zeros(1, 3, *transform.crop_size * 2))
    return int(maps.shape[1])


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
