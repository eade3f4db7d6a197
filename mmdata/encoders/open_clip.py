"""CLIP models of open_clip: `open_clip:ARCH/TAG_OR_FILE#TOWER`, also with `local-dir:FOLDER` and `hf-hub:REPO`."""

from typing import TYPE_CHECKING, Any

from mmdata.encoders import Encoder, Prepared, Request, Windows
from mmdata.encoders.weights import check, hash_tensors
from mmdata.errors import ConfigError, ModelError
from mmdata.storage.receipts import versions
from mmdata.types import EncoderCard, Modality, Reason

if TYPE_CHECKING:
    from mmdata.encoders.text import Tokenize

TOWERS = (Modality.IMAGE, Modality.TEXT)
FAMILY = "open_clip:"


def describe(name: str, tower: str, request: Request) -> EncoderCard:
    """The card of a tower; builds the model, since open_clip keeps sizes and preprocessing in code."""
    if tower not in TOWERS:
        raise ConfigError(f"{FAMILY}{name} has two towers; say " + " or ".join(f"{FAMILY}{name}#{m}" for m in TOWERS))
    import open_clip

    model, _ = _model(name)
    digest, local = hash_tensors(model), name.startswith("local-dir:")
    arch, weights = _arch(name)
    preprocessing = open_clip.get_model_preprocess_cfg(model)
    windows: str = ""
    if tower == Modality.TEXT:
        tokenizer = _tokenizer(name)
        preprocessing = {"max_tokens": tokenizer.context_length, "pad_id": 0, "padding": "full"}
        windows = request.windows if _splits(tokenizer) else Windows.CUT
    return EncoderCard(
        modality=Modality(tower),
        dim=int(open_clip.get_model_config(arch)["embed_dim"]),
        normalised=True,
        space=f"{FAMILY}{'local' if local else arch}@{digest[:12]}",
        preprocessing={key: list(v) if isinstance(v, tuple) else v for key, v in preprocessing.items()},
        revision=weights or ("local" if local else "hub"),
        weights_sha256=digest,
        towers={modality.value: f"{FAMILY}{name}#{modality}" for modality in TOWERS},
        windows=windows,
        versions=versions("torch", "open_clip_torch"),
    )


def load(card: EncoderCard, device: str) -> Encoder:
    """Build the tower that the card names."""
    from mmdata.encoders.image import ImageEncoder
    from mmdata.encoders.pixels import preparation, steps_of
    from mmdata.encoders.text import TextEncoder

    name = card.spec.removeprefix(FAMILY).partition("#")[0]
    model, transform = _model(name)
    check(hash_tensors(model), card.weights_sha256, card.spec)
    model.to(device)
    if card.modality is Modality.TEXT:
        tokenize = _windows(_tokenizer(name))
        return TextEncoder(card, tokenize, lambda ids, mask: (model.encode_text(ids, normalize=True), []), device)
    way = preparation(transform, steps_of(transform))
    return ImageEncoder(card, model, way, lambda pixels: (model.encode_image(pixels, normalize=True), []), device)


def _windows(tokenizer: Any) -> "Tokenize":
    """CLIP's own tokenizer in windows between its start and its end; of any other what it cuts itself."""
    room = tokenizer.context_length - 2

    def own(text: str) -> list[Prepared]:
        cleaned = tokenizer.clean_fn(text)
        words = [(word.span(), tokenizer.encode(word.group())) for word in tokenizer.pat.finditer(cleaned)]
        tokens = [(token, span) for span, ids in words for token in ids]
        windows = [tokens[start : start + room] for start in range(0, max(len(tokens), 1), room)]
        return [
            Prepared(
                [tokenizer.sot_token_id, *(token for token, _ in window), tokenizer.eot_token_id],
                len(window) + 2,
                window[0][1][0] if window else 0,
                window[-1][1][1] if window else 0,
            )
            for window in windows
        ]

    def other(text: str) -> list[Prepared]:
        ids = tokenizer([text])[0].tolist()
        cut = len(tokenizer.tokenizer(tokenizer.clean_fn(text))["input_ids"]) > tokenizer.context_length
        return [Prepared(ids, len(ids), 0, len(text), (Reason.TOO_LONG,) if cut else ())]

    return own if _splits(tokenizer) else other


def _splits(tokenizer: Any) -> bool:
    return hasattr(tokenizer, "sot_token_id")


def _tokenizer(name: str) -> Any:
    import open_clip

    try:
        return open_clip.get_tokenizer(_arch(name)[0])
    except (OSError, ValueError, ImportError) as error:
        raise ModelError(f"{FAMILY}{name} has no tokenizer that loads: {error}") from error


def _arch(name: str) -> tuple[str, str]:
    """The architecture, and the tag or file of its weights: empty where they lie in one folder or repository."""
    if name.startswith(("local-dir:", "hf-hub:")):
        return name, ""
    arch, _, weights = name.partition("/")
    return arch, weights


def _model(name: str) -> tuple[Any, Any]:
    """The model and its transform for evaluation."""
    from pickle import UnpicklingError

    import open_clip
    from safetensors import SafetensorError

    arch, weights = _arch(name)
    if ":" not in arch and arch not in open_clip.list_models():
        raise ConfigError(f"open_clip has no model {arch!r}; open_clip.list_models() names them")
    if ":" not in arch and not weights:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(arch)) or "none, so a file"
        raise ConfigError(f"say which weights: {FAMILY}{arch}/TAG_OR_FILE; tags: {tags}")
    try:
        model, _, transform = open_clip.create_model_and_transforms(
            arch,
            pretrained=weights or None,
            require_pretrained=True,  # else a model whose weights are missing is a random one
        )
    except (OSError, RuntimeError, ValueError, KeyError, UnpicklingError, SafetensorError) as error:
        raise ModelError(f"{FAMILY}{name} cannot be loaded: {error}") from error
    return model.eval(), transform
