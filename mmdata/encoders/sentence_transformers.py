"""Models of sentence-transformers with all their modules: what `SentenceTransformer.encode` gives."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmdata.encoders import Encoder, Prepared, Request
from mmdata.encoders.hf import locate
from mmdata.encoders.hf_words import MAX_TOKENS
from mmdata.encoders.weights import check, hash_folder
from mmdata.errors import ModelError
from mmdata.storage.receipts import versions
from mmdata.types import EncoderCard, Modality

if TYPE_CHECKING:
    import torch

FAMILY = "sentence-transformers"


def describe(name: str, tower: str, request: Request) -> EncoderCard:
    """The card of a model folder or hub repository; builds the model, whose modules may be any."""
    folder, revision = locate(name, FAMILY)
    model, digest = _model(name, folder), hash_folder(folder)
    return EncoderCard(
        modality=Modality.TEXT,
        dim=int(model.get_embedding_dimension()),
        normalised=type(model[-1]).__name__ == "Normalize",
        space=f"{FAMILY}:{name if revision != 'local' else 'local'}@{digest[:12]}",
        preprocessing={
            "max_tokens": int(model.max_seq_length or MAX_TOKENS),
            "pad_id": int(model.tokenizer.pad_token_id or 0),
            "pooling": ", ".join(type(module).__name__ for module in list(model)[1:]),
            "prompt": _prompt(model),
        },
        revision=revision,
        weights_sha256=digest,
        windows=request.windows,
        token_dim=int(model[0].get_embedding_dimension()),
        versions=versions("torch", "transformers", "sentence-transformers"),
    )


def load(card: EncoderCard, device: str) -> Encoder:
    """Build the model; its default prompt, if it has one, stands before every text."""
    from mmdata.encoders.text import TextEncoder, tokens_of

    name = card.spec.removeprefix(f"{FAMILY}:")
    folder, _ = locate(name, FAMILY)
    model = _model(name, folder)
    check(hash_folder(folder), card.weights_sha256, card.spec)
    model.to(device)
    prompt = card.preprocessing["prompt"]
    # for a pooling that leaves the prompt out
    facts = {k: v for k, v in model.preprocess(["a"], prompt=prompt or None).items() if k == "prompt_length"}
    tokenize = tokens_of(model.tokenizer.backend_tokenizer, card)

    def prompted(text: str) -> list[Prepared]:
        return tokenize(prompt + text)

    def forward(ids: "torch.Tensor", mask: "torch.Tensor") -> "tuple[torch.Tensor, torch.Tensor]":
        found = model({"input_ids": ids, "attention_mask": mask, **facts})
        return found["sentence_embedding"], found["token_embeddings"]

    return TextEncoder(card, prompted, forward, device)


def _prompt(model: Any) -> str:
    return str(model.prompts[model.default_prompt_name]) if model.default_prompt_name else ""


def _model(name: str, folder: Path) -> Any:
    from safetensors import SafetensorError
    from sentence_transformers import SentenceTransformer

    try:
        model = SentenceTransformer(
            str(folder), device="cpu", trust_remote_code=False, model_kwargs={"use_safetensors": True}
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{FAMILY}:{name} cannot be loaded: {error}") from error
    if not hasattr(model.tokenizer, "backend_tokenizer"):
        raise ModelError(f"{FAMILY}:{name} has no tokenizer that is safe in several threads")
    return model.eval()
