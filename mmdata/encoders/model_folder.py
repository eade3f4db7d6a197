"""What the folder of a transformers model says about itself, read without importing torch or transformers."""

import json
from pathlib import Path
from typing import Any

from mmdata.encoders.weights import hash_files
from mmdata.errors import ConfigError, ModelError
from mmdata.types import Modality

JOINT = {"clip", "siglip"}  # an image and a text tower in one space
FULL_LENGTH = {"siglip"}  # trained on texts padded to the full length, and without a mask
SHIFTED = {"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "longformer", "data2vec-text"}
"""Models that number positions from behind the padding id, so that many fewer are of use."""
MAX_TOKENS = 512  # where neither tokenizer nor model says
POOLINGS = ("mean", "cls")
POOLING_FLAGS = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token"}  # before version 5.3
SENTENCE_MODULES = {"Transformer", "Pooling", "Normalize"}
Facts = dict[str, Any]


def hash_weights(folder: Path) -> str:
    """sha256 over the safetensors. ModelError when there are none."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ModelError(f"{folder} holds no .safetensors; other weight formats are not loaded")
    return hash_files(files)


def read_config(folder: Path) -> Facts:
    """`config.json`; with the defaults of transformers, which then is imported, where it leaves out sizes.

    Raises ModelError for a kind of model that cannot be an encoder here.
    """
    config = _json(folder / "config.json")
    kind = config.get("model_type")
    if config.get("is_encoder_decoder"):
        raise ModelError(f"{folder} is a {kind!r} model, an encoder with a decoder; give an encoder")
    if kind not in JOINT and {"text_config", "vision_config"} <= config.keys():
        raise ModelError(f"{folder} is a {kind!r} model; of models with two towers these work: {', '.join(JOINT)}")
    if dim_of(config) is not None:
        return config
    from transformers import AutoConfig

    try:
        whole: Facts = AutoConfig.from_pretrained(folder, trust_remote_code=False).to_dict()
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{folder}/config.json is not one of transformers: {error}") from error
    if dim_of(whole) is None:
        raise ModelError(f"{folder}/config.json does not say how long the model's vectors are")
    return whole


def dim_of(config: Facts) -> int | None:
    """How long the vectors are, where the config says so."""
    text, sizes = config.get("text_config") or {}, config.get("hidden_sizes")
    if config.get("model_type") in JOINT:
        found = config.get("projection_dim", text.get("projection_size", text.get("hidden_size")))
    elif sizes:
        found = sizes[-1]
    else:
        found = config.get("hidden_size", config.get("d_model", config.get("n_embd")))
    return found if isinstance(found, int) else None


def modality_of(folder: Path, config: Facts, tower: str, name: str) -> Modality:
    """By its towers, else by its processor; without a processor it is text. ConfigError for a wrong tower."""
    if config.get("model_type") in JOINT:
        if tower not in (Modality.IMAGE, Modality.TEXT):
            raise ConfigError(f"hf:{name} has two towers; say hf:{name}#image or hf:{name}#text")
        return Modality(tower)
    processor = _processor(folder)
    found = Modality.TEXT if not processor else Modality.AUDIO if "sampling_rate" in processor else Modality.IMAGE
    if tower and tower != found:
        raise ConfigError(f"hf:{name} is of {found} alone, it has no tower for {tower}")
    return found


def normalises(folder: Path) -> bool:
    """Whether the files of sentence-transformers end in vectors of unit length. ModelError for steps unknown."""
    steps = _sentence_steps(folder)
    unknown = steps - SENTENCE_MODULES
    if unknown:
        raise ModelError(f"{folder}/modules.json has a step that is not known here: {', '.join(sorted(unknown))}")
    return "Normalize" in steps or (folder / "2_Normalize").exists()


def preprocessing_of(folder: Path, modality: Modality) -> Facts:
    """What a card says of how inputs are made."""
    if modality is Modality.TEXT:
        return text_preprocessing(folder)
    facts = _processor(folder)
    if not facts:
        raise ModelError(f"{folder} has no preprocessor_config.json, which says how {modality} is prepared")
    return {**facts, "rate": facts["sampling_rate"]} if modality is Modality.AUDIO else facts


def text_preprocessing(folder: Path) -> Facts:
    """Length, padding and pooling of a text model, as its folder says (sentence-transformers' files included)."""
    config = read_config(folder)
    text = config.get("text_config") or config
    limits = [
        _json(path).get(key)
        for path, key in [
            (folder / "sentence_bert_config.json", "max_seq_length"),
            (folder / "tokenizer_config.json", "model_max_length"),
        ]
        if path.exists()
    ]
    limit = next((n for n in limits if n and n < 1_000_000), MAX_TOKENS)
    pad = text.get("pad_token_id") or 0
    positions = text.get("max_position_embeddings", MAX_TOKENS)
    if config.get("model_type") in SHIFTED:
        positions -= pad + 1
    full = {"padding": "full"} if config.get("model_type") in FULL_LENGTH else {}
    return {
        "max_tokens": min(int(limit), positions),
        "pad_id": pad,
        "pooling": "projection" if config.get("model_type") in JOINT else _pooling(folder),
        **full,
    }


def _pooling(folder: Path) -> str:
    path = folder / "1_Pooling" / "config.json"
    if not path.exists():
        return "mean"
    facts = _json(path)
    flags = [name for name, flag in POOLING_FLAGS.items() if facts.get(flag)]
    found = facts.get("pooling_mode", flags[0] if len(flags) == 1 else None)
    others = [name for name, on in facts.items() if name.startswith("pooling_mode_") and on is True]
    if found not in POOLINGS or len(others) > 1:
        raise ModelError(f"{path} asks for a pooling that is not one of {', '.join(POOLINGS)}")
    return str(found)


def _sentence_steps(folder: Path) -> set[str]:
    path = folder / "modules.json"
    return {step["type"].rpartition(".")[2] for step in json.loads(path.read_text())} if path.exists() else set()


def _processor(folder: Path) -> Facts:
    """Of images or sounds: a file of its own, or, as transformers 5 writes it, a part of another."""
    own, shared = folder / "preprocessor_config.json", folder / "processor_config.json"
    if own.exists():
        return _json(own)
    facts = _json(shared) if shared.exists() else {}
    found: Facts = facts.get("image_processor") or facts.get("feature_extractor") or {}
    return found


def _json(path: Path) -> Facts:
    if not path.exists():
        raise ModelError(f"{path} is missing, so {path.parent} is not a transformers model")
    try:
        facts: Facts = json.loads(path.read_text())
    except ValueError as error:
        raise ModelError(f"{path} is not JSON: {error}") from error
    return facts
