"""What the folder of a transformers model says about itself, read without importing torch or transformers."""

from pathlib import Path

from mmdata.encoders.hf_words import text_preprocessing
from mmdata.encoders.weights import Facts, hash_folder, read_json, tensor_names
from mmdata.errors import ConfigError, ModelError
from mmdata.types import Modality

JOINT = {
    "clip": (Modality.IMAGE, Modality.TEXT),
    "siglip": (Modality.IMAGE, Modality.TEXT),
    "siglip2": (Modality.IMAGE, Modality.TEXT),  # with pictures of any shape; the others of SigLIP 2 are "siglip"
    "clap": (Modality.AUDIO, Modality.TEXT),
}
"""Kinds of model with two towers in one space."""
AST = "audio-spectrogram-transformer"
TOWERS = {Modality.IMAGE: "vision_config", Modality.AUDIO: "audio_config", Modality.TEXT: "text_config"}
CLASS_TOKENS = ("cls_token", "class_token")  # how transformers names the parameter
WINDOW_SECONDS = 30.0  # of sound, for models that take any length
FIXED_WINDOW = {"whisper": ("chunk_length", 1.0), "clap": ("max_length_s", 1.0), AST: ("max_length", 0.01)}
"""Models of a fixed length of sound: where the extractor says it, and the seconds of its unit."""
SENSES = {"num_channels", "conv_dim", "num_mel_bins"}
"""What only models of images or sounds have in their config."""
SOUND_POOLING = {"clap": "projection", AST: "pooler"}


def digest_of(folder: Path) -> str:
    """sha256 over weights, settings and vocabulary. ModelError when there are no safetensors."""
    _weights(folder)
    return hash_folder(folder)


def read_config(folder: Path) -> Facts:
    """`config.json`; with the defaults of transformers, which then is imported, where it leaves out sizes.

    Raises ModelError for a kind of model that cannot be an encoder here.
    """
    config = read_json(folder / "config.json")
    kind = config.get("model_type")
    if kind not in JOINT and "text_config" in config and config.keys() & {"vision_config", "audio_config"}:
        raise ModelError(f"{folder} is a {kind!r} model; of models with two towers these work: {', '.join(JOINT)}")
    if kind and _has_sizes(config):
        return config
    from transformers import AutoConfig

    try:
        whole: Facts = AutoConfig.from_pretrained(folder, trust_remote_code=False).to_dict()
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{folder}/config.json is not one of transformers: {error}") from error
    if dim_of(whole) is None:
        raise ModelError(f"{folder}/config.json does not say how long the model's vectors are")
    return whole


def _has_sizes(config: Facts) -> bool:
    towers = [config.get(TOWERS[modality]) or {} for modality in JOINT.get(config["model_type"], ())]
    text = config.get("text_config") or {}
    return dim_of(config) is not None and (
        not towers or ("max_position_embeddings" in text and all("hidden_size" in tower for tower in towers))
    )


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


def width_of(config: Facts, modality: Modality) -> int:
    """How long the vectors of patches, words or frames are; 0 where there are none."""
    if config["model_type"] not in JOINT:
        return dim_of(config) or 0
    return 0 if modality is Modality.AUDIO else int(config[TOWERS[modality]]["hidden_size"])


def modality_of(folder: Path, config: Facts, tower: str, name: str) -> Modality:
    """By its towers, else by its processor; without a processor it is text. ConfigError for a wrong tower."""
    if towers := JOINT.get(config["model_type"]):
        if tower not in towers:
            raise ConfigError(f"hf:{name} has two towers; say " + " or ".join(f"hf:{name}#{m}" for m in towers))
        return Modality(tower)
    processor = _processor(folder)
    if not processor and (senses := config.keys() & SENSES):
        raise ModelError(
            f"{folder} has no preprocessor_config.json, which says how its inputs are prepared; a model with "
            f"{', '.join(sorted(senses))} in its config.json is none of text"
        )
    found = Modality.TEXT if not processor else Modality.AUDIO if "sampling_rate" in processor else Modality.IMAGE
    if tower and tower != found:
        raise ConfigError(f"hf:{name} is of {found} alone, it has no tower for {tower}")
    return found


def preprocessing_of(folder: Path, config: Facts, modality: Modality) -> Facts:
    """What a card says of how inputs are made and what their vector is."""
    if modality is Modality.TEXT:
        return text_preprocessing(folder, config, "projection" if config["model_type"] in JOINT else "")
    facts = _processor(folder)
    if not facts:
        raise ModelError(f"{folder} has no preprocessor_config.json, which says how {modality} is prepared")
    if modality is Modality.AUDIO:
        pooling = SOUND_POOLING.get(config["model_type"], "mean of the sound's frames")
        return facts | {"rate": facts["sampling_rate"], "pooling": pooling}
    return facts | {"pooling": _image_pooling(folder, config)}


def window_seconds(config: Facts, preprocessing: Facts, asked: float | None) -> float:
    """How long a window of sound is. ConfigError when more is asked for than the model takes."""
    key, unit = FIXED_WINDOW.get(config["model_type"], ("", 0.0))
    if not key:
        return asked or WINDOW_SECONDS
    longest = float(preprocessing[key] * unit)
    if asked and asked > longest:
        raise ConfigError(f"a {config['model_type']} model takes {longest:g} s at once, --window-seconds is {asked:g}")
    return asked or longest


def _image_pooling(folder: Path, config: Facts) -> str:
    if config["model_type"] in JOINT:
        return "projection"
    names = [name for file in _weights(folder) for name in tensor_names(file)]
    return "cls" if any(name.endswith(CLASS_TOKENS) for name in names) else "pooler"


def _weights(folder: Path) -> list[Path]:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ModelError(f"{folder} holds no .safetensors; other weight formats are not loaded")
    return files


def _processor(folder: Path) -> Facts:
    """Of images or sounds: a file of its own, or, as transformers 5 writes it, a part of another."""
    own, shared = folder / "preprocessor_config.json", folder / "processor_config.json"
    if own.exists():
        return read_json(own)
    facts = read_json(shared) if shared.exists() else {}
    found: Facts = facts.get("image_processor") or facts.get("feature_extractor") or {}
    return found
