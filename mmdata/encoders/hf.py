"""Models of transformers, from a hub id or a local folder, with their own tokenizers and processors."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdata.encoders import Encoder, Request
from mmdata.encoders.model_folder import (
    JOINT,
    dim_of,
    hash_weights,
    modality_of,
    normalises,
    preprocessing_of,
    read_config,
)
from mmdata.encoders.weights import check
from mmdata.errors import ModelError
from mmdata.storage.receipts import versions
from mmdata.types import EncoderCard, Modality

VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "tokenizer.model")
WINDOW_SECONDS = 30.0  # of sound, where nobody asks for another length
FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]


def describe(name: str, tower: str, request: Request) -> EncoderCard:
    """The card of a model folder or hub repository."""
    folder, revision = _locate(name)
    config = read_config(folder)
    modality = modality_of(folder, config, tower, name)
    joint = config.get("model_type") in JOINT
    digest = hash_weights(folder)
    spec = f"hf:{name}" + (f"#{modality}" if joint else "")
    return EncoderCard(
        name="",
        spec=spec,
        modality=modality,
        dim=dim_of(config) or 0,
        dtype=request.dtype,
        precision=request.precision,
        normalised=joint or (modality is Modality.TEXT and normalises(folder)),
        space=f"hf:{name if revision != 'local' else config.get('model_type')}@{digest[:12]}",
        preprocessing=preprocessing_of(folder, modality) | _window(modality, request),
        revision=revision,
        weights_sha256=digest,
        towers={m.value: f"hf:{name}#{m}" for m in (Modality.IMAGE, Modality.TEXT)}
        if joint
        else {modality.value: spec},
        windows="" if modality is Modality.IMAGE else request.windows,
        versions=versions("torch", "transformers"),
    )


def _window(modality: Modality, request: Request) -> dict[str, Any]:
    return {"window_seconds": request.window_seconds or WINDOW_SECONDS} if modality is Modality.AUDIO else {}


def load(card: EncoderCard, device: str) -> Encoder:
    """Build the tower that the card names."""
    folder, _ = _locate(card.spec.removeprefix("hf:").partition("#")[0])
    check(hash_weights(folder), card.weights_sha256, card.spec)
    build = {Modality.TEXT: load_text, Modality.IMAGE: _load_image, Modality.AUDIO: _load_audio}
    return build[card.modality](card, folder, device)


def load_text(card: EncoderCard, folder: Path, device: str) -> Encoder:
    """The text encoder in a model folder."""
    from transformers import AutoTokenizer

    from mmdata.encoders.text import TextEncoder, mean_pool

    if not any((folder / name).exists() for name in VOCABULARIES):
        raise ModelError(f"{folder} has no tokenizer: none of {', '.join(VOCABULARIES)}")  # transformers makes one up
    model = _model(folder, device)
    tokenizer = getattr(_own(AutoTokenizer, folder), "backend_tokenizer", None)
    if tokenizer is None:
        raise ModelError(f"{folder} has no tokenizer.json, so no tokenizer that is safe in several threads")
    pooling = card.preprocessing["pooling"]

    def forward(ids: Any, mask: Any) -> Any:
        if pooling == "projection":
            return _pooled(model.get_text_features(input_ids=ids, attention_mask=mask))
        states = model(input_ids=ids, attention_mask=mask).last_hidden_state
        return states[:, 0] if pooling == "cls" else mean_pool(states, mask)

    return TextEncoder(card, tokenizer, forward, device)


def _load_image(card: EncoderCard, folder: Path, device: str) -> Encoder:
    from transformers import AutoImageProcessor

    from mmdata.encoders.image import ImageEncoder

    model = _model(folder, device)
    processor = _own(AutoImageProcessor, folder)
    class_token = any(name.endswith("cls_token") for name, _ in model.named_parameters())

    def forward(pixels: Any) -> Any:
        if "text" in card.towers:
            return _pooled(model.get_image_features(pixel_values=pixels))
        output = model(pixel_values=pixels)
        return output.last_hidden_state[:, 0] if class_token else output.pooler_output

    transform: Callable[[Any], Any] = lambda image: processor(images=image, return_tensors="pt")["pixel_values"][0]  # noqa: E731
    return ImageEncoder(card, model, transform, device, forward)


def _load_audio(card: EncoderCard, folder: Path, device: str) -> Encoder:
    from transformers import AutoFeatureExtractor

    from mmdata.encoders.audio import AudioEncoder

    model = _model(folder, device)
    extractor = _own(AutoFeatureExtractor, folder)
    least = _shortest(model.config)

    def forward(wave: NDArray[np.float32]) -> Any:
        long_enough = np.pad(wave, (0, max(0, least - len(wave))))
        inputs = extractor(long_enough, sampling_rate=card.preprocessing["rate"], return_tensors="pt").to(device)
        return model(**inputs).last_hidden_state.mean(1)[0]

    return AudioEncoder(card, forward, device)


def _shortest(config: Any) -> int:
    """The samples that the convolutions in front of a model need to give one frame."""
    samples = 1
    steps = zip(getattr(config, "conv_kernel", ()), getattr(config, "conv_stride", ()), strict=True)
    for kernel, stride in reversed(list(steps)):
        samples = (samples - 1) * stride + kernel
    return samples


def _model(folder: Path, device: str) -> Any:
    """The model, every tensor of which came from the folder."""
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModel
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    options = {"use_safetensors": True, "trust_remote_code": False, "dtype": torch.float32}
    try:
        model, report = AutoModel.from_pretrained(folder, output_loading_info=True, **options)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"cannot load the model in {folder}: {error}") from error
    missing = sorted(name for name in report["missing_keys"] if "pooler" not in name)  # poolers are not used
    if missing:
        raise ModelError(f"{folder} lacks {len(missing)} tensors of its model, the first is {missing[0]}")
    return model.eval().to(device)


def _own(kind: Any, folder: Path) -> Any:
    """The tokenizer or processor that belongs to a model."""
    try:
        return kind.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, ImportError) as error:
        raise ModelError(f"{folder} has no {kind.__name__.removeprefix('Auto')} that loads: {error}") from error


def _pooled(output: Any) -> Any:
    return getattr(output, "pooler_output", output)


def _locate(name: str) -> tuple[Path, str]:
    if Path(name).is_dir():
        return Path(name).absolute(), "local"
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, allow_patterns=FILES))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ModelError(
            f"hf:{name} is neither a folder here nor a model that the hub gives: {str(error).splitlines()[0]}"
        ) from error
    return folder, folder.name  # the snapshot folder is named after the commit
