"""Image models of timm: a pretrained name, or `local-dir:FOLDER` with config.json and model.safetensors."""

from pathlib import Path
from typing import Any

from mmdata.encoders import Encoder, Request
from mmdata.encoders.weights import LOCAL, check, hash_model, read_json
from mmdata.errors import ModelError
from mmdata.storage.receipts import versions
from mmdata.types import EncoderCard, Modality


def describe(name: str, tower: str, request: Request) -> EncoderCard:
    """The card of a timm model; builds it, since timm keeps dims and preprocessing in code."""
    import timm

    model = _model(name)
    digest = hash_model(model, name)
    preprocessing = timm.data.resolve_model_data_config(model)
    return EncoderCard(
        modality=Modality.IMAGE,
        dim=int(model.num_features if not hasattr(model, "head_hidden_size") else model.head_hidden_size),
        space=f"timm:{name.split(LOCAL)[0] or 'local'}@{digest[:12]}",
        preprocessing={key: list(v) if isinstance(v, tuple) else v for key, v in preprocessing.items()},
        revision=str(model.pretrained_cfg.get("tag") or "local"),
        weights_sha256=digest,
        token_dim=int(model.num_features),
        versions=versions("torch", "timm"),
    )


def load(card: EncoderCard, device: str) -> Encoder:
    """Build the model with timm's own evaluation transform."""
    import timm

    from mmdata.encoders.image import ImageEncoder
    from mmdata.encoders.pixels import preparation, steps_of

    name = card.spec.removeprefix("timm:")
    model = _model(name)
    check(hash_model(model, name), card.weights_sha256, card.spec)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    return ImageEncoder(card, model, preparation(transform, steps_of(transform)), seen_by(model, card), device)


def seen_by(model: Any, card: EncoderCard) -> Any:
    """The forward of a timm model without its classifier: vectors and, where asked for, maps of its patches."""

    def forward(pixels: Any) -> Any:
        states = model.forward_features(pixels)
        return model.forward_head(states), _maps(model, states, pixels) if card.tokens else []

    return forward


def _maps(model: Any, states: Any, pixels: Any) -> Any:
    """Maps `(n, dim, height, width)`."""
    if states.ndim == 4:
        return states.permute(0, 3, 1, 2) if getattr(model, "output_fmt", "NCHW") == "NHWC" else states
    patches = states[:, getattr(model, "num_prefix_tokens", 0) :]
    height, width = pixels.shape[-2:]
    rows = round((patches.shape[1] * height / width) ** 0.5)
    return patches.transpose(1, 2).unflatten(2, (rows, patches.shape[1] // rows))


def _model(name: str) -> Any:
    import timm
    from safetensors import SafetensorError

    if name.startswith(LOCAL):
        _check_folder(name, Path(name.removeprefix(LOCAL)))
    try:
        return timm.create_model(name, pretrained=True, num_classes=0).eval()
    except (OSError, RuntimeError, ValueError, KeyError, SafetensorError) as error:
        # unreachable or unreadable files; unknown names and weights that do not fit; config.json that is none
        raise ModelError(f"timm:{name} cannot be loaded: {error}") from error


def _check_folder(name: str, folder: Path) -> None:
    if not folder.is_dir():
        raise ModelError(f"timm:{name} cannot be loaded: there is no folder {folder}")
    facts = read_json(folder / "config.json")
    if "architecture" not in facts:
        other = f"; try hf:{folder}" if "model_type" in facts else ""
        raise ModelError(f"timm:{name} is none of timm: its config.json names no architecture{other}")
