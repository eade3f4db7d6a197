"""The sounds of transformers: from a folder to an AudioEncoder."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoFeatureExtractor

from mmdata.encoders import Encoder
from mmdata.encoders.audio import Arrays, AudioEncoder, Heard, mean_of_frames, shortest
from mmdata.encoders.device import keep_exact
from mmdata.encoders.hf import load_model, own
from mmdata.encoders.hf_folder import AST
from mmdata.errors import ModelError
from mmdata.types import EncoderCard

AST_FRAME = 400  # samples: 25 ms of torchaudio.compliance.kaldi.fbank
Forward = Callable[[Mapping[str, torch.Tensor], torch.Tensor], Heard]


def load_audio(card: EncoderCard, folder: Path, device: str) -> Encoder:
    """The encoder of sound in a model folder. ModelError for an extractor that makes what is not known here."""
    model = load_model(folder, device)
    keep_exact(model, device, card.precision)
    extractor = own(AutoFeatureExtractor, folder)
    rate = card.preprocessing["rate"]
    special = {"whisper": _whisper, "clap": _clap, AST: _ast}.get(model.config.model_type)
    if special is None and extractor.model_input_names[0] != "input_values":
        raise ModelError(f"{folder} is a {model.config.model_type!r} model, whose inputs are not known here")
    least = _least(model.config)

    def extract(wave: NDArray[np.float32]) -> Arrays:
        long_enough = np.pad(wave, (0, max(0, least - len(wave))))
        inputs = extractor(long_enough, sampling_rate=rate, return_tensors="np")
        return {name: rows[0] for name, rows in inputs.items() if name != "attention_mask"}

    if special is not None:
        return AudioEncoder(card, extract, special(model), device)
    # a model that normalises over the whole length (wav2vec2-base) hears the padding; the others take a mask
    maskable = bool(extractor.return_attention_mask) and getattr(model.config, "feat_extract_norm", "") == "layer"
    return AudioEncoder(card, extract, _waves(model, least, maskable), device, maskable)


def _waves(model: Any, least: int, maskable: bool) -> Forward:
    """wav2vec 2.0, HuBERT, WavLM ...: the mean over the frames of the sound itself."""

    def forward(inputs: Mapping[str, torch.Tensor], samples: torch.Tensor) -> Heard:
        waves, samples = inputs["input_values"], samples.clamp(min=least)
        mask = torch.arange(waves.shape[1], device=waves.device)[None] < samples[:, None]
        states = model(input_values=waves, attention_mask=mask.long() if maskable else None).last_hidden_state
        return mean_of_frames(states, model._get_feat_extract_output_lengths(samples))

    return forward


def _whisper(model: Any) -> Forward:
    """The mean over the frames of the sound; the frames of the silence that fills up its 30 seconds are left out."""
    hop = 160 * model.conv1.stride[0] * model.conv2.stride[0]  # samples a frame; a log-mel frame has 160

    def forward(inputs: Mapping[str, torch.Tensor], samples: torch.Tensor) -> Heard:
        states = model(inputs["input_features"]).last_hidden_state
        return mean_of_frames(states, samples.add(hop - 1).div(hop, rounding_mode="floor").clamp(1, states.shape[1]))

    return forward


def _ast(model: Any) -> Forward:
    """Its pooler's mean of the two class tokens; a frame is the mean over the frequencies of its patches."""
    config = model.config
    bands = (config.num_mel_bins - config.patch_size) // config.frequency_stride + 1

    def forward(inputs: Mapping[str, torch.Tensor], samples: torch.Tensor) -> Heard:
        output = model(inputs["input_values"])
        patches = output.last_hidden_state[:, 2:].unflatten(1, (bands, -1))
        return output.pooler_output, list(patches.mean(1))

    return forward


def _clap(model: Any) -> Forward:
    """The projection into the space of its texts."""

    def forward(inputs: Mapping[str, torch.Tensor], samples: torch.Tensor) -> Heard:
        return model.get_audio_features(**inputs).pooler_output, []

    return forward


def _least(config: Any) -> int:
    """The samples that a model needs: for one frame of its convolutions, or of the spectrogram in front of it."""
    if config.model_type == AST:
        return AST_FRAME
    return shortest(getattr(config, "conv_kernel", ()), getattr(config, "conv_stride", ()))
