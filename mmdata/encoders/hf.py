"""Models of transformers, from a hub id or a local folder, with their own tokenizers and processors."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdata.encoders import Encoder, Request
from mmdata.encoders.weights import check, hash_files
from mmdata.errors import ConfigError, ModelError
from mmdata.storage.receipts import versions
from mmdata.types import EncoderCard, Modality

JOINT = {"clip", "siglip"}  # an image and a text tower in one space
FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]
MAX_TOKENS = 512  # where neither tokenizer nor model says


def describe(name: str, tower: str, request: Request) -> EncoderCard:
    """The card of a model folder or hub repository; imports neither torch nor transformers."""
    folder, revision = _locate(name)
    config = _json(folder / "config.json")
    modality = _modality(folder, config, tower, name)
    joint = config.get("model_type") in JOINT
    digest = _hash_weights(folder)
    spec = f"hf:{name}" + (f"#{modality}" if joint else "")
    return EncoderCard(
        name="",
        spec=spec,
        modality=modality,
        dim=_dim(config, joint, spec),
        dtype=request.dtype,
        precision=request.precision,
        normalised=joint or (modality is Modality.TEXT and (folder / "2_Normalize").exists()),
        space=f"hf:{name if revision != 'local' else config.get('model_type')}@{digest[:12]}",
        preprocessing=_preprocessing(folder, modality),
        revision=revision,
        weights_sha256=digest,
        towers={m.value: f"hf:{name}#{m}" for m in (Modality.IMAGE, Modality.TEXT)}
        if joint
        else {modality.value: spec},
        versions=versions("torch", "transformers"),
    )


def load(card: EncoderCard, device: str) -> Encoder:
    """Build the tower that the card names."""
    folder, _ = _locate(card.spec.removeprefix("hf:").partition("#")[0])
    check(_hash_weights(folder), card.weights_sha256, card.spec)
    build = {Modality.TEXT: load_text, Modality.IMAGE: _load_image, Modality.AUDIO: _load_audio}
    return build[card.modality](card, folder, device)


def load_text(card: EncoderCard, folder: Path, device: str) -> Encoder:
    """The text encoder in a model folder."""
    from transformers import AutoTokenizer

    from mmdata.encoders.text import TextEncoder, mean_pool

    model = _model(folder, device)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False).backend_tokenizer
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
    processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=False)

    def forward(pixels: Any) -> Any:
        if "text" in card.towers:
            return _pooled(model.get_image_features(pixel_values=pixels))
        output = model(pixel_values=pixels)
        states = output.last_hidden_state
        return states[:, 0] if states.ndim == 3 else output.pooler_output

    transform: Callable[[Any], Any] = lambda image: processor(images=image, return_tensors="pt")["pixel_values"][0]  # noqa: E731
    return ImageEncoder(card, model, transform, device, forward)


def _load_audio(card: EncoderCard, folder: Path, device: str) -> Encoder:
    from transformers import AutoFeatureExtractor

    from mmdata.encoders.audio import AudioEncoder

    model = _model(folder, device)
    extractor = AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=False)

    def forward(wave: NDArray[np.float32]) -> Any:
        inputs = extractor(wave, sampling_rate=card.preprocessing["rate"], return_tensors="pt").to(device)
        return model(**inputs).last_hidden_state.mean(1)[0]

    return AudioEncoder(card, forward, device)


def _model(folder: Path, device: str) -> Any:
    import torch
    from transformers import AutoModel
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    try:
        model = AutoModel.from_pretrained(folder, use_safetensors=True, trust_remote_code=False, dtype=torch.float32)
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"cannot load the model in {folder}: {error}") from error
    return model.eval().to(device)


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


def _hash_weights(folder: Path) -> str:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ModelError(f"{folder} holds no .safetensors; other weight formats are not loaded")
    return hash_files(files)


def _json(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise ModelError(f"{path} is missing, so {path.parent} is not a transformers model")
    facts: dict[str, Any] = json.loads(path.read_text())
    return facts


def _modality(folder: Path, config: dict[str, Any], tower: str, name: str) -> Modality:
    if config.get("model_type") in JOINT:
        if tower not in (Modality.IMAGE, Modality.TEXT):
            raise ConfigError(f"hf:{name} has two towers; say hf:{name}#image or hf:{name}#text")
        return Modality(tower)
    processor = folder / "preprocessor_config.json"
    if not processor.exists():
        return Modality.TEXT
    return Modality.AUDIO if "sampling_rate" in _json(processor) else Modality.IMAGE


def _dim(config: dict[str, Any], joint: bool, spec: str) -> int:
    text = config.get("text_config", {})
    sizes = config.get("hidden_sizes")
    found = (
        config.get("projection_dim", text.get("projection_size", text.get("hidden_size")))
        if joint
        else sizes[-1]
        if sizes
        else config.get("hidden_size", config.get("d_model", config.get("n_embd")))
    )
    if not isinstance(found, int):
        raise ModelError(f"{spec}: config.json does not say how long its vectors are")
    return found


def _preprocessing(folder: Path, modality: Modality) -> dict[str, Any]:
    if modality is Modality.TEXT:
        return text_preprocessing(folder)
    facts = _json(folder / "preprocessor_config.json")
    return {**facts, "rate": facts["sampling_rate"]} if modality is Modality.AUDIO else facts


def text_preprocessing(folder: Path) -> dict[str, Any]:
    """Length, padding and pooling of a text model, as its folder says (sentence-transformers' files included)."""
    config = _json(folder / "config.json")
    pooling = folder / "1_Pooling" / "config.json"
    limits = [
        _json(path).get(key)
        for path, key in [
            (folder / "sentence_bert_config.json", "max_seq_length"),
            (folder / "tokenizer_config.json", "model_max_length"),
        ]
        if path.exists()
    ]
    positions = config.get("text_config", config).get("max_position_embeddings", MAX_TOKENS)
    limit = next((n for n in limits if n and n < 1_000_000), MAX_TOKENS)
    return {
        "max_tokens": min(int(limit), positions),
        "pad_id": config.get("text_config", config).get("pad_token_id") or 0,
        "pooling": (
            "projection"
            if config.get("model_type") in JOINT
            else "cls"
            if pooling.exists() and _json(pooling).get("pooling_mode_cls_token")
            else "mean"
        ),
    }
