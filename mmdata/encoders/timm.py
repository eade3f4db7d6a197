"""Image models of timm: a pretrained name, or `local-dir:FOLDER` with config.json and model.safetensors."""

from typing import Any

from mmdata.encoders import Encoder, Request
from mmdata.encoders.image import ImageEncoder
from mmdata.encoders.weights import check, hash_tensors
from mmdata.errors import ModelError
from mmdata.storage.receipts import versions
from mmdata.types import EncoderCard, Modality


def describe(name: str, tower: str, request: Request) -> EncoderCard:
    """The card of a timm model; builds it, since timm keeps dims and preprocessing in code."""
    import timm

    model = _model(name)
    digest = hash_tensors(model)
    preprocessing = timm.data.resolve_model_data_config(model)
    spec = f"timm:{name}"
    return EncoderCard(
        name="",
        spec=spec,
        modality=Modality.IMAGE,
        dim=int(model.num_features if not hasattr(model, "head_hidden_size") else model.head_hidden_size),
        dtype=request.dtype,
        precision=request.precision,
        normalised=False,
        space=f"{spec.split(':local-dir:')[0]}@{digest[:12]}",
        preprocessing={key: list(v) if isinstance(v, tuple) else v for key, v in preprocessing.items()},
        revision=str(model.pretrained_cfg.get("tag") or "local"),
        weights_sha256=digest,
        towers={Modality.IMAGE.value: spec},
        versions=versions("torch", "timm"),
    )


def load(card: EncoderCard, device: str) -> Encoder:
    """Build the model with timm's own evaluation transform."""
    import timm

    model = _model(card.spec.removeprefix("timm:"))
    check(hash_tensors(model), card.weights_sha256, card.spec)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    return ImageEncoder(card, model, transform, device)


def _model(name: str) -> Any:
    import timm
    from safetensors import SafetensorError

    try:
        return timm.create_model(name, pretrained=True, num_classes=0).eval()
    except (OSError, RuntimeError, ValueError, KeyError, SafetensorError) as error:
        # unreachable or unreadable files; unknown names and weights that do not fit; config.json that is none
        raise ModelError(f"timm:{name} cannot be loaded: {error}") from error
