"""CLIP models of open_clip: `open_clip:ARCH/TAG_OR_FILE#TOWER`, also with `local-dir:FOLDER` and `hf-hub:REPO`."""

from dataclasses import replace
from threading import Lock
from typing import TYPE_CHECKING, Any

from mmdata.encoders import Encoder, Prepared, Request, Windows
from mmdata.encoders.weights import LOCAL, check, hash_model
from mmdata.errors import ConfigError, ModelError
from mmdata.storage.receipts import versions
from mmdata.types import EncoderCard, Modality, Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import torch

    from mmdata.encoders.image import Seen
    from mmdata.encoders.text import Read, Tokenize

TOWERS = (Modality.IMAGE, Modality.TEXT)
FAMILY = "open_clip:"


def describe(name: str, tower: str, request: Request) -> EncoderCard:
    """The card of a tower; builds the model, since open_clip keeps sizes and preprocessing in code."""
    if tower not in TOWERS:
        raise ConfigError(f"{FAMILY}{name} has two towers; say " + " or ".join(f"{FAMILY}{name}#{m}" for m in TOWERS))
    import open_clip

    model, _ = _model(name)
    digest, local = hash_model(model, name), name.startswith(LOCAL)
    arch, weights = _arch(name)
    preprocessing = open_clip.get_model_preprocess_cfg(model)
    windows: str = ""
    if tower == Modality.TEXT:
        tokenizer = _tokenizer(name)
        preprocessing = {"max_tokens": tokenizer.context_length, "pad_id": _pad(tokenizer), "padding": "full"}
        windows = request.windows if _is_own(tokenizer) or _is_plain(tokenizer) else Windows.CUT
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
        token_dim=_token_dim(model, tower, preprocessing) if request.tokens else 0,
        versions=versions("torch", "open_clip_torch"),
    )


def load(card: EncoderCard, device: str) -> Encoder:
    """Build the tower that the card names."""
    from mmdata.encoders.image import ImageEncoder
    from mmdata.encoders.pixels import preparation, steps_of
    from mmdata.encoders.text import TextEncoder

    name = card.spec.removeprefix(FAMILY).partition("#")[0]
    model, transform = _model(name)
    check(hash_model(model, name), card.weights_sha256, card.spec)
    model.to(device)
    if card.modality is Modality.TEXT:
        tokenizer = _tokenizer(name)
        pad_left = _is_plain(tokenizer) and tokenizer.tokenizer.padding_side == "left"
        return TextEncoder(card, _tokenize(tokenizer, card), _read(model, card), device, pad_left)
    return ImageEncoder(card, model, preparation(transform, steps_of(transform)), _see(model, card), device)


def _see(model: Any, card: EncoderCard) -> "Callable[[torch.Tensor], Seen]":
    def forward(pixels: "torch.Tensor") -> "Seen":
        if not card.tokens:
            return model.encode_image(pixels, normalize=True), []
        found = model.forward_intermediates(image=pixels, image_indices=1, normalize_intermediates=True)
        return found["image_features"], found["image_intermediates"][-1]

    return forward


def _read(model: Any, card: EncoderCard) -> "Read":
    def forward(ids: "torch.Tensor", mask: "torch.Tensor") -> "tuple[torch.Tensor, Iterable[torch.Tensor]]":
        if not card.tokens:
            return model.encode_text(ids, normalize=True), []
        found = model.forward_intermediates(text=ids, text_indices=1, normalize_intermediates=True)
        return found["text_features"], found["text_intermediates"][-1]

    return forward


def _token_dim(model: Any, tower: str, preprocessing: dict[str, Any]) -> int:
    """Of the patches or words behind the last block; 0 for a text tower of transformers, which gives none."""
    import torch

    if tower == Modality.IMAGE:
        pixels = torch.zeros(1, 3, *_sides(preprocessing["size"]))
        maps = model.forward_intermediates(image=pixels, image_indices=1, intermediates_only=True)
        return int(maps["image_intermediates"][-1].shape[1])
    if not hasattr(getattr(model, "text", model), "forward_intermediates"):
        return 0
    ids = torch.zeros(1, preprocessing["max_tokens"], dtype=torch.long)
    states = model.forward_intermediates(text=ids, text_indices=1, intermediates_only=True)
    return int(states["text_intermediates"][-1].shape[-1])


def _sides(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


def _tokenize(tokenizer: Any, card: EncoderCard) -> "Tokenize":
    if _is_own(tokenizer):
        return _own(tokenizer)
    return _plain(tokenizer, card) if _is_plain(tokenizer) else _other(tokenizer)


def _own(tokenizer: Any) -> "Tokenize":
    """CLIP's own tokenizer, in windows between its start and its end."""
    room = tokenizer.context_length - 2

    def tokenize(text: str) -> list[Prepared]:
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

    return tokenize


def _plain(tokenizer: Any, card: EncoderCard) -> "Tokenize":
    """A tokenizer of transformers, in windows."""
    from mmdata.encoders.text import tokens_of

    in_windows = tokens_of(tokenizer.tokenizer.backend_tokenizer, card)
    gone = tokenizer.tokenizer.sep_token_id if tokenizer.strip_sep_token else None

    def tokenize(text: str) -> list[Prepared]:
        windows = in_windows(tokenizer.clean_fn(text))
        return [replace(window, data=[0 if token == gone else token for token in window.data]) for window in windows]

    return tokenize


def _other(tokenizer: Any) -> "Tokenize":
    """Any other, which cuts by itself: whether it did shows when there is room for one token more.

    transformers sets the length that a tokenizer cuts to at every call and for all threads, so they take turns.
    """
    turn, room, pad = Lock(), tokenizer.context_length, _pad(tokenizer)

    def tokenize(text: str) -> list[Prepared]:
        with turn:
            ids, more = (tokenizer([text], context_length=length)[0] for length in (room, room + 1))
        cut = bool((more != pad).sum() > (ids != pad).sum())
        return [Prepared(ids.tolist(), len(ids), 0, len(text), (Reason.TOO_LONG,) if cut else ())]

    return tokenize


def _is_own(tokenizer: Any) -> bool:
    return hasattr(tokenizer, "sot_token_id")


def _is_plain(tokenizer: Any) -> bool:
    """Whether it gives what the library tokenizers alone gives, but for padding."""
    return not getattr(tokenizer, "tokenizer_mode", "other") and hasattr(tokenizer.tokenizer, "backend_tokenizer")


def _pad(tokenizer: Any) -> int:
    return 0 if _is_own(tokenizer) else int(tokenizer.tokenizer.pad_token_id or 0)


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
