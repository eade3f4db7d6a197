"""What the models' own libraries give, called as their documentation calls them, one input at a time."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from mmdata.media.audio import Waveform

Picture = NDArray[np.uint8]
normalize = torch.nn.functional.normalize


@lru_cache(2)
def _transformers(folder: Path) -> Any:
    from transformers import AutoModel

    return AutoModel.from_pretrained(folder).eval()


def _tokens(folder: Path, text: str, **how: Any) -> Any:
    from transformers import AutoTokenizer

    how = {"max_length": 24} | how
    return AutoTokenizer.from_pretrained(folder)(text, truncation=True, return_tensors="pt", **how)


def mean(folder: Path, text: str) -> torch.Tensor:
    return _transformers(folder)(**_tokens(folder, text)).last_hidden_state[0].mean(0)


def unit_mean(folder: Path, text: str) -> torch.Tensor:
    states = _transformers(folder)(**_tokens(folder, text, max_length=256)).last_hidden_state
    return normalize(states[0].mean(0), dim=0)


def unit_first(folder: Path, text: str) -> torch.Tensor:
    states = _transformers(folder)(**_tokens(folder, text, max_length=12)).last_hidden_state
    return normalize(states[0, 0], dim=0)


def unit_last(folder: Path, text: str) -> torch.Tensor:
    states = _transformers(folder)(**_tokens(folder, text, max_length=12)).last_hidden_state
    return normalize(states[0, -1], dim=0)


def t5_encoder(folder: Path, text: str) -> torch.Tensor:
    from transformers import T5EncoderModel

    model = T5EncoderModel.from_pretrained(folder).eval()
    return model(**_tokens(folder, text)).last_hidden_state[0].mean(0)


def sentence(folder: Path, text: str) -> torch.Tensor:
    from sentence_transformers import SentenceTransformer

    return torch.from_numpy(SentenceTransformer(str(folder), device="cpu").encode([text])[0])


def sentence_whole(folder: Path, text: str) -> torch.Tensor:
    return sentence(folder / "whole", text)


def joint_text(folder: Path, text: str) -> torch.Tensor:
    vector = _transformers(folder).get_text_features(**_tokens(folder, text)).pooler_output
    return normalize(vector[0], dim=0)


def siglip_text(folder: Path, text: str) -> torch.Tensor:
    ids = _tokens(folder, text, padding="max_length")["input_ids"]
    return normalize(_transformers(folder).get_text_features(input_ids=ids).pooler_output[0], dim=0)


def _pixels(folder: Path, picture: Picture) -> Any:
    from transformers import AutoImageProcessor

    return AutoImageProcessor.from_pretrained(folder)(images=Image.fromarray(picture), return_tensors="pt")


def first_token(folder: Path, picture: Picture) -> torch.Tensor:
    return _transformers(folder)(**_pixels(folder, picture)).last_hidden_state[0, 0]


def pooled_map(folder: Path, picture: Picture) -> torch.Tensor:
    return _transformers(folder)(**_pixels(folder, picture)).pooler_output[0].flatten()


def joint_image(folder: Path, picture: Picture) -> torch.Tensor:
    vector = _transformers(folder).get_image_features(**_pixels(folder, picture)).pooler_output
    return normalize(vector[0], dim=0)


def _sound(folder: Path, sound: Waveform, least: int = 45) -> Any:
    from transformers import AutoFeatureExtractor

    wave = np.pad(sound.samples, (0, max(0, least - len(sound.samples))))  # (8 - 1) * 5 + 10 samples make one frame
    return AutoFeatureExtractor.from_pretrained(folder)(wave, sampling_rate=16_000, return_tensors="pt")


def mean_frame(folder: Path, sound: Waveform) -> torch.Tensor:
    return _transformers(folder)(**_sound(folder, sound)).last_hidden_state[0].mean(0)


def whisper_encoder(folder: Path, sound: Waveform) -> torch.Tensor:
    states = _transformers(folder).encoder(_sound(folder, sound)["input_features"]).last_hidden_state[0]
    return states[: -(-len(sound.samples) // 320)].mean(0)  # 320 samples make a frame


def pooled_sound(folder: Path, sound: Waveform) -> torch.Tensor:
    return _transformers(folder)(**_sound(folder, sound, least=400)).pooler_output[0]  # 25 ms make one frame


def joint_sound(folder: Path, sound: Waveform) -> torch.Tensor:
    return normalize(_transformers(folder).get_audio_features(**_sound(folder, sound, least=1)).pooler_output[0], dim=0)


def bundle_base(folder: Path, sound: Waveform) -> torch.Tensor:
    import torchaudio

    return _bundle(torchaudio.pipelines.TINY_BASE, folder, sound)


def bundle_large(folder: Path, sound: Waveform) -> torch.Tensor:
    import torchaudio

    return _bundle(torchaudio.pipelines.TINY_LARGE, folder, sound)


def _bundle(bundle: Any, folder: Path, sound: Waveform) -> torch.Tensor:
    model = bundle.get_model(dl_kwargs={"model_dir": str(folder), "file_name": "weights.pth"})
    wave = np.pad(sound.samples, (0, max(0, 45 - len(sound.samples))))
    layers, _ = model.extract_features(torch.from_numpy(wave)[None])
    return layers[-1][0].mean(0)


def open_clip_image(folder: Path, picture: Picture) -> torch.Tensor:
    import open_clip

    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    vector = model.eval().encode_image(preprocess(Image.fromarray(picture))[None])
    return (vector / vector.norm(dim=-1, keepdim=True))[0]


def open_clip_text(folder: Path, text: str) -> torch.Tensor:
    import open_clip

    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    vector = model.eval().encode_text(open_clip.get_tokenizer(f"local-dir:{folder}")([text]))
    return (vector / vector.norm(dim=-1, keepdim=True))[0]


def timm_vit(folder: Path, picture: Picture) -> torch.Tensor:
    return _timm("test_vit", folder, picture)


def timm_resnet(folder: Path, picture: Picture) -> torch.Tensor:
    return _timm("test_resnet", folder, picture)


def _timm(name: str, folder: Path, picture: Picture) -> torch.Tensor:
    import timm
    from safetensors.torch import load_file

    model = timm.create_model(name, pretrained=False).eval()
    model.load_state_dict(load_file(folder / "model.safetensors"))
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    states = model.forward_features(transform(Image.fromarray(picture))[None])
    return model.forward_head(states, pre_logits=True)[0]


def torchvision_resnet(folder: Path, picture: Picture) -> torch.Tensor:
    from safetensors.torch import load_file
    from torchvision.models import ResNet18_Weights, resnet18

    model = resnet18(weights=None).eval()
    model.load_state_dict(load_file(folder / "weights.safetensors"))
    pixels = ResNet18_Weights.DEFAULT.transforms()(Image.fromarray(picture))[None]
    return torch.nn.Sequential(*list(model.children())[:-1])(pixels).flatten()


def efficientnet(file: Path, picture: Picture) -> torch.Tensor:
    import timm
    from torchvision.transforms import functional

    weights = torch.load(file, weights_only=True)
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    model.load_state_dict(dict(zip(model.state_dict(), weights.values(), strict=True)))
    resized = functional.resize(Image.fromarray(picture), 256, functional.InterpolationMode.BICUBIC)
    cropped = np.asarray(functional.center_crop(resized, 224), np.float32)
    pixels = torch.from_numpy((cropped - 127) / 128).permute(2, 0, 1)[None]
    return model.forward_head(model.forward_features(pixels), pre_logits=True)[0]


def mel_stats(file: Path, sound: Waveform) -> torch.Tensor:
    from torchaudio.transforms import MFCC

    wave = torch.from_numpy(np.pad(sound.samples, (0, max(0, 512 - len(sound.samples)))))
    cepstra = MFCC(16_000, 20, log_mels=True, melkwargs={"n_fft": 512, "hop_length": 160, "n_mels": 64})
    mels, mfccs = torch.log(cepstra.MelSpectrogram(wave) + 1e-6), cepstra(wave)
    spread = [frames.std(1, correction=0) for frames in (mels, mfccs)]
    return torch.cat([mels.mean(1), mfccs.mean(1), *spread])
