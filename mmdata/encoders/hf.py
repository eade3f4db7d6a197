"""Models of transformers, from a hub id or a local folder, with their own tokenizers and processors."""

from pathlib import Path
from typing import Any

from mmdata.encoders import Encoder, Request
from mmdata.encoders.hf_folder import (
    JOINT,
    digest_of,
    dim_of,
    modality_of,
    preprocessing_of,
    read_config,
    width_of,
    window_seconds,
)
from mmdata.encoders.hf_words import normalises
from mmdata.encoders.weights import FILES, check
from mmdata.errors import ModelError
from mmdata.storage.receipts import versions
from mmdata.types import EncoderCard, Modality


def describe(name: str, tower: str, request: Request) -> EncoderCard:
    """The card of a model folder or hub repository."""
    folder, revision = locate(name)
    config = read_config(folder)
    modality = modality_of(folder, config, tower, name)
    towers = JOINT.get(config["model_type"], ())
    digest = digest_of(folder)
    preprocessing = preprocessing_of(folder, config, modality)
    if modality is Modality.AUDIO:
        preprocessing["window_seconds"] = window_seconds(config, preprocessing, request.window_seconds)
    return EncoderCard(
        modality=modality,
        dim=dim_of(config) or 0,
        spec=f"hf:{name}" + (f"#{modality}" if towers else ""),
        normalised=bool(towers) or (modality is Modality.TEXT and normalises(folder)),
        space=f"hf:{name if revision != 'local' else config['model_type']}@{digest[:12]}",
        preprocessing=preprocessing,
        revision=revision,
        weights_sha256=digest,
        towers={m.value: f"hf:{name}#{m}" for m in towers},
        windows="" if modality is Modality.IMAGE else request.windows,
        token_dim=width_of(config, modality),
        versions=versions("torch", "transformers"),
    )


def load(card: EncoderCard, device: str) -> Encoder:
    """Build the tower that the card names."""
    from mmdata.encoders.hf_audio import load_audio
    from mmdata.encoders.hf_image import load_image
    from mmdata.encoders.hf_text import load_text

    folder, _ = locate(card.spec.removeprefix("hf:").partition("#")[0])
    check(digest_of(folder), card.weights_sha256, card.spec)
    build = {Modality.TEXT: load_text, Modality.IMAGE: load_image, Modality.AUDIO: load_audio}
    return build[card.modality](card, folder, device)


def load_model(folder: Path, device: str) -> Any:
    """The model, or the encoder of one that has a decoder; every tensor of it came from the folder."""
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModel, AutoModelForTextEncoding
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    names = read_config(folder).get("architectures") or []
    alone = any(name.endswith("EncoderModel") for name in names)  # of T5 and its kin, saved without the decoder
    kind = AutoModelForTextEncoding if alone else AutoModel
    options = {"use_safetensors": True, "trust_remote_code": False, "dtype": torch.float32}
    try:
        model, report = kind.from_pretrained(folder, output_loading_info=True, **options)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"cannot load the model in {folder}: {error}") from error
    unused = [] if model.config.model_type in JOINT else ["pooler"]  # only towers are pooled by their own poolers
    unused += ["decoder."] if _has_decoder(model) else []
    missing = sorted(name for name in report["missing_keys"] if not any(part in name for part in unused))
    if missing:
        raise ModelError(f"{folder} lacks {len(missing)} tensors of its model, the first is {missing[0]}")
    return (model.get_encoder() if _has_decoder(model) else model).eval().to(device)


def _has_decoder(model: Any) -> bool:
    return bool(getattr(model.config, "is_encoder_decoder", False))


def own(kind: Any, folder: Path) -> Any:
    """The tokenizer or processor that belongs to a model."""
    try:
        return kind.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, ImportError) as error:
        raise ModelError(f"{folder} has no {kind.__name__.removeprefix('Auto')} that loads: {error}") from error


def locate(name: str, family: str = "hf") -> tuple[Path, str]:
    """The folder of a model, which the hub is asked for where there is none here, and its commit or "local"."""
    if Path(name).is_dir():
        return Path(name).absolute(), "local"
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, allow_patterns=FILES))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ModelError(
            f"{family}:{name} is neither a folder here nor a model that the hub gives: {str(error).splitlines()[0]}"
        ) from error
    return folder, folder.name  # the snapshot folder is named after the commit
