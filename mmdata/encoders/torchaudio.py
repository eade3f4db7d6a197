"""Bundles of torchaudio.pipelines (wav2vec 2.0, HuBERT, WavLM): `torchaudio:WAV2VEC2_BASE[/WEIGHTS_FILE]`."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mmdata.encoders import Encoder, Request
from mmdata.encoders.weights import check, hash_tensors
from mmdata.errors import ConfigError, ModelError
from mmdata.storage.receipts import versions
from mmdata.types import EncoderCard, Modality

if TYPE_CHECKING:
    import torch

    from mmdata.encoders.audio import Arrays, Heard

WINDOW_SECONDS = 30.0  # where nobody asks for another length
UNMASKABLE = {"GroupNorm", "WavLMSelfAttention"}  # normalises over the whole length; takes no mask


def describe(name: str, tower: str, request: Request) -> EncoderCard:
    """The card of a bundle; builds it, since torchaudio keeps sizes in code."""
    model, _, rate = _bundle(name)
    digest = hash_tensors(model)
    dim = int(model.encoder.transformer.layer_norm.normalized_shape[0])
    return EncoderCard(
        modality=Modality.AUDIO,
        dim=dim,
        space=f"torchaudio:{name.partition('/')[0]}@{digest[:12]}",
        preprocessing={
            "rate": rate,
            "window_seconds": request.window_seconds or WINDOW_SECONDS,
            "pooling": "mean of the last layer's frames",
        },
        revision=name.partition("/")[2] or "torchaudio",
        weights_sha256=digest,
        windows=request.windows,
        token_dim=dim,
        versions=versions("torch", "torchaudio"),
    )


def load(card: EncoderCard, device: str) -> Encoder:
    """Build the bundle's model."""
    import torch

    from mmdata.encoders.audio import AudioEncoder, mean_of_frames, shortest
    from mmdata.encoders.device import keep_exact

    model, normalised, _ = _bundle(card.spec.removeprefix("torchaudio:"))
    check(hash_tensors(model), card.weights_sha256, card.spec)
    model.to(device)
    keep_exact(model, device, card.precision)
    maskable = not UNMASKABLE & {type(module).__name__ for module in model.modules()}
    layers = model.feature_extractor.conv_layers
    least = shortest([layer.kernel_size for layer in layers], [layer.stride for layer in layers])

    def extract(wave: NDArray[np.float32]) -> "Arrays":
        long_enough = np.pad(wave, (0, max(0, least - len(wave))))
        if not normalised:
            return {"wave": long_enough}
        return {"wave": torch.nn.functional.layer_norm(torch.from_numpy(long_enough), long_enough.shape).numpy()}

    def forward(inputs: "Mapping[str, torch.Tensor]", samples: "torch.Tensor") -> "Heard":
        layers, counts = model.extract_features(inputs["wave"], samples.clamp(min=least) if maskable else None)
        states = layers[-1]
        return mean_of_frames(states, torch.full((len(states),), states.shape[1]) if counts is None else counts)

    return AudioEncoder(card, extract, forward, device, maskable)


def _bundle(name: str) -> tuple[Any, bool, int]:
    """The model, whether its waves are brought to mean 0 and variance 1 first, and its rate in Hz."""
    from pickle import UnpicklingError

    from torchaudio import pipelines

    bundle_name, _, file = name.partition("/")
    bundle = getattr(pipelines, bundle_name, None)
    if not isinstance(bundle, pipelines.Wav2Vec2Bundle):
        there = [n for n in dir(pipelines) if isinstance(getattr(pipelines, n), pipelines.Wav2Vec2Bundle)]
        raise ConfigError(f"torchaudio has no bundle {bundle_name!r}; there are: {', '.join(there)}")
    if file and not Path(file).is_file():
        raise ModelError(f"torchaudio:{name} cannot be loaded: there is no file {file}")
    here = {"model_dir": str(Path(file).parent), "file_name": Path(file).name} if file else {"progress": False}
    try:
        model = bundle.get_model(dl_kwargs={**here, "weights_only": True})
    except (OSError, RuntimeError, UnpicklingError, EOFError) as error:
        raise ModelError(f"torchaudio:{name} cannot be loaded: {error}") from error
    # torchaudio normalises a batch as a whole, so that a row would depend on its neighbours: done a wave at a time here
    normalised = hasattr(model, "normalize_waveform")
    return model.model if normalised else model, normalised, int(bundle.sample_rate)
