"""The texts of transformers: from a folder to a TextEncoder."""

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from mmdata.encoders import Encoder
from mmdata.encoders.hf import load_model, own
from mmdata.encoders.text import POOLERS, Read, TextEncoder, tokens_of
from mmdata.errors import ModelError
from mmdata.types import EncoderCard

VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "tokenizer.model")


def load_text(card: EncoderCard, folder: Path, device: str) -> Encoder:
    """The text encoder in a model folder."""
    if not any((folder / name).exists() for name in VOCABULARIES):
        raise ModelError(f"{folder} has no tokenizer: none of {', '.join(VOCABULARIES)}")  # transformers makes one up
    model = load_model(folder, device)
    tokenizer = own(AutoTokenizer, folder)
    if not hasattr(tokenizer, "backend_tokenizer"):
        raise ModelError(f"{folder} has no tokenizer.json, so no tokenizer that is safe in several threads")
    forward = _projected(model) if card.preprocessing["pooling"] == "projection" else _pooled(model, card)
    pad_left = tokenizer.padding_side == "left" and card.preprocessing.get("padding") == "full"
    return TextEncoder(card, tokens_of(tokenizer.backend_tokenizer, card), forward, device, pad_left)


def _projected(model: Any) -> Read:
    def forward(ids: Any, mask: Any) -> Any:
        output = model.get_text_features(input_ids=ids, attention_mask=mask)
        return output.pooler_output, output.last_hidden_state

    return forward


def _pooled(model: Any, card: EncoderCard) -> Read:
    pool = POOLERS[card.preprocessing["pooling"]]

    def forward(ids: Any, mask: Any) -> Any:
        states = model(input_ids=ids, attention_mask=mask).last_hidden_state
        return pool(states.float(), mask), states

    return forward
