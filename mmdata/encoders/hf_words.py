"""What the folder of a transformers model says about its texts: length, padding, pooling."""

import json
from pathlib import Path

from mmdata.encoders.weights import Facts, read_json
from mmdata.errors import ModelError

FULL_LENGTH = {"siglip", "siglip2"}  # trained on texts padded to the full length, and without a mask
SHIFTED = {
    "roberta",
    "xlm-roberta",
    "xlm-roberta-xl",
    "camembert",
    "mpnet",
    "longformer",
    "data2vec-text",
    "clap_text_model",
}
"""Models that number positions from behind the padding id, so that many fewer are of use."""
MAX_TOKENS = 512  # where neither tokenizer nor model says
POOLINGS = {
    "mean": "pooling_mode_mean_tokens",
    "cls": "pooling_mode_cls_token",
    "lasttoken": "pooling_mode_lasttoken",
    "max": "pooling_mode_max_tokens",
}
"""Name in the files of sentence-transformers, and the flag for it before version 5.3."""
SENTENCE_MODULES = {"Transformer", "Pooling", "Normalize"}


def text_preprocessing(folder: Path, config: Facts, pooling: str = "") -> Facts:
    """Length, padding and pooling of a text model, as its folder says (sentence-transformers' files included).

    Where no file says how to pool, it is the mean over the tokens: of a causal model, too, whose last token
    has seen all others but was never trained to stand for them.
    """
    text = config.get("text_config") or config
    limits = [
        read_json(path).get(key)
        for path, key in [
            (folder / "sentence_bert_config.json", "max_seq_length"),
            (folder / "tokenizer_config.json", "model_max_length"),
        ]
        if path.exists()
    ]
    limit = next((n for n in limits if n and n < 1_000_000), MAX_TOKENS)
    pad = text.get("pad_token_id") or 0
    positions = text.get("max_position_embeddings", text.get("n_positions", MAX_TOKENS))
    if text.get("model_type") in SHIFTED:
        positions -= pad + 1
    full = {"padding": "full"} if config.get("model_type") in FULL_LENGTH else {}
    return {
        "max_tokens": min(int(limit), positions),
        "pad_id": pad,
        "pooling": pooling or _pooling(folder),
        **full,
    }


def normalises(folder: Path) -> bool:
    """Whether the files of sentence-transformers end in vectors of unit length. ModelError for steps unknown."""
    path = folder / "modules.json"
    steps = {step["type"].rpartition(".")[2] for step in json.loads(path.read_text())} if path.exists() else set()
    unknown = steps - SENTENCE_MODULES
    if unknown:
        raise ModelError(
            f"{folder}/modules.json has a step that is not known here: {', '.join(sorted(unknown))}; "
            f"say sentence-transformers:{folder}"
        )
    return "Normalize" in steps or (folder / "2_Normalize").exists()


def _pooling(folder: Path) -> str:
    path = folder / "1_Pooling" / "config.json"
    if not path.exists():
        return "mean"
    facts = read_json(path)
    flags = [name for name, flag in POOLINGS.items() if facts.get(flag)]
    found = facts.get("pooling_mode", flags[0] if len(flags) == 1 else None)
    others = [name for name, on in facts.items() if name.startswith("pooling_mode_") and on is True]
    if not isinstance(found, str) or found not in POOLINGS or len(others) > 1:
        raise ModelError(f"{path} asks for a pooling that is not one of {', '.join(POOLINGS)}")
    return found
