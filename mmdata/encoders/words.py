"""An image classifier that writes to the space of a text encoder, by the names of its classes.

ConSE (Norouzi et al. 2013, arXiv 1312.5650): a picture is the mean of the text encoder's vectors of the class names,
weighed by the probabilities that the classifier gives them. No pair of a picture and a text is needed.
"""

import os
from dataclasses import replace
from functools import cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdata.encoders import Encoder, Request, load_encoder
from mmdata.encoders import describe as card_of
from mmdata.encoders.starters import efficientnet, efficientnet_encoder
from mmdata.errors import ModelError
from mmdata.types import EncoderCard

TEXT, IMAGE = "minilm", "efficientnet-lite0"
BESIDE = "efficientnet-lite0-words"
TEMPERATURE = 2.0  # of the softmax: at 1 the first class drowns the others (benchmarks/RESULTS.md)
BATCH = 64  # names that are encoded at once


def describe(name: str, tower: str, request: Request) -> EncoderCard:
    """Of the words alone, in the space of the text encoder; or of the picture's own vector with the words behind it."""
    text, image = card_of(TEXT), card_of(IMAGE)
    facts = {"names": sha256("\n".join(class_names()).encode()).hexdigest(), "temperature": TEMPERATURE}
    card = replace(image, name="", spec=name, space="", towers={}, dtype="", precision="")
    card = replace(card, preprocessing=image.preprocessing | facts | {"text": text.fingerprint}, token_dim=0)
    if name == BESIDE:
        holds = {text.space: [image.dim, image.dim + text.dim]}  # which `mmdata align` makes use of
        return replace(card, dim=image.dim + text.dim, preprocessing=card.preprocessing | {"holds": holds})
    return replace(card, dim=text.dim, normalised=True, space=text.space, towers={"image": name} | text.towers)


def load(card: EncoderCard, device: str) -> Encoder:
    """The classifier, and the vectors of its class names."""
    import torch

    model = efficientnet()
    names = torch.from_numpy(_vectors_of_names(card)).to(device)

    def forward(pixels: Any) -> Any:
        pooled = model.forward_head(model.forward_features(pixels), pre_logits=True).flatten(1)
        share = (model.classifier(pooled).float() / TEMPERATURE).softmax(1)
        words = torch.nn.functional.normalize(share @ names, dim=1)
        return (torch.cat([pooled.float(), words], dim=1) if card.spec == BESIDE else words), []

    return efficientnet_encoder(card, model, forward, device)


@cache
def class_names() -> tuple[str, ...]:
    """The first name of each of ImageNet's classes, as timm lists them; timm itself is not imported."""
    found = find_spec("timm")
    if found is None or not found.submodule_search_locations:
        raise ModelError("the names of ImageNet's classes come with timm: pip install timm")
    folder = Path(found.submodule_search_locations[0]) / "data" / "_info"
    lemmas = (folder / "imagenet_synset_to_lemma.txt").read_text().splitlines()
    names = dict(line.split("\t", 1) for line in lemmas)
    synsets = (folder / "imagenet_synsets.txt").read_text().split()
    return tuple(names[synset].split(",")[0] for synset in synsets)


def _vectors_of_names(card: EncoderCard) -> NDArray[np.float32]:
    """`(1000, dim)`; made once and kept below the user's cache folder, since a thousand texts take seconds."""
    facts = card.preprocessing
    kept = cache_folder() / f"{facts['names'][:16]}.{facts['text'][:16]}.npy"
    if kept.exists():
        return np.load(kept)  # type: ignore[no-any-return]
    encoder = load_encoder(card_of(TEXT))
    ready = [encoder.prepare(f"A {name}.")[0].data for name in class_names()]
    found = np.concatenate([encoder.encode(ready[at : at + BATCH]) for at in range(0, len(ready), BATCH)])
    kept.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=kept.parent, suffix=".npy", delete=False) as file:
        np.save(file, found)
    Path(file.name).replace(kept)  # whole or not at all, whoever else is making it
    return found


def cache_folder() -> Path:
    """$MMDATA_CACHE, else mmdata below the user's cache folder; the part of class names."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("MMDATA_CACHE") or Path(base) / "mmdata") / "names"
