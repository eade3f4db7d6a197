"""Small random models of sounds, and of two modalities in one space, saved as their own libraries save them."""

import json
from pathlib import Path

import torch
import torchaudio
from tiny_models import LENGTH, SIDE, SIZES, WORDS, image_processor, tokenizer

CONVOLUTIONS = {"conv_dim": (8, 8), "conv_stride": (5, 4), "conv_kernel": (10, 8)}
POSITIONS = {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}


def _waves(folder: Path, kind: str, norm: str) -> None:
    import transformers

    config = getattr(transformers, f"{kind}Config")(
        **SIZES, **CONVOLUTIONS, **POSITIONS, feat_extract_norm=norm, initializer_range=0.2
    )
    getattr(transformers, f"{kind}Model")(config).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=norm == "layer").save_pretrained(
        folder
    )


def wav2vec2(folder: Path) -> None:
    """A wav2vec 2.0 as "base" is: its first layer normalises over the whole length, so it hears padding."""
    _waves(folder, "Wav2Vec2", "group")


def wav2vec2_layer(folder: Path) -> None:
    """A wav2vec 2.0 as "large" is: it takes a mask."""
    _waves(folder, "Wav2Vec2", "layer")


def hubert(folder: Path) -> None:
    """A HuBERT that takes a mask."""
    _waves(folder, "Hubert", "layer")


def wavlm(folder: Path) -> None:
    """A WavLM that takes a mask."""
    _waves(folder, "WavLM", "layer")


def whisper(folder: Path) -> None:
    """A Whisper of one layer: an encoder with a decoder, on 30 seconds always."""
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel

    sizes = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    sizes |= {"d_model": 16, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "num_mel_bins": 20, "vocab_size": 50}
    config = WhisperConfig(**sizes, pad_token_id=0, init_std=0.3)
    WhisperModel(config).save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=20).save_pretrained(folder)


def ast(folder: Path) -> None:
    """An AST on 1.28 seconds."""
    from transformers import ASTConfig, ASTFeatureExtractor, ASTModel

    config = ASTConfig(**SIZES, max_length=128, num_mel_bins=32, patch_size=16, initializer_range=0.5)
    ASTModel(config).save_pretrained(folder)
    ASTFeatureExtractor(max_length=128, num_mel_bins=32).save_pretrained(folder)


def _joint(folder: Path, kind: str) -> None:
    import transformers

    limits = {"vocab_size": len(WORDS), "max_position_embeddings": LENGTH}
    text = SIZES | limits | {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
    patches = {"num_patches": 16} if kind == "Siglip2" else {"image_size": SIDE}
    config = getattr(transformers, f"{kind}Config")(text_config=text, vision_config=SIZES | patches | {"patch_size": 8})
    if kind == "CLIP":
        config.projection_dim = 12
    getattr(transformers, f"{kind}Model")(config).save_pretrained(folder)
    tokenizer(folder, LENGTH)


def clip(folder: Path) -> None:
    """A CLIP: two towers, one space."""
    _joint(folder, "CLIP")
    image_processor(folder, "CLIP")


def clip_of_one_processor(folder: Path) -> None:
    """A CLIP whose picture processor is written as a part of `processor_config.json`, as transformers 5 does."""
    from transformers import AutoTokenizer, CLIPImageProcessor, CLIPProcessor

    _joint(folder, "CLIP")
    pictures = CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    CLIPProcessor(image_processor=pictures, tokenizer=AutoTokenizer.from_pretrained(folder)).save_pretrained(folder)


def siglip(folder: Path) -> None:
    """A SigLIP: its text tower reads the last of all positions, so a text is always padded to the full length."""
    _joint(folder, "Siglip")
    image_processor(folder, "Siglip")


def siglip2(folder: Path) -> None:
    """A SigLIP 2 that takes pictures of any shape: at most 16 patches, padded to 16."""
    from transformers import Siglip2ImageProcessor

    _joint(folder, "Siglip2")
    Siglip2ImageProcessor(patch_size=8, max_num_patches=16).save_pretrained(folder)


def clap(folder: Path) -> None:
    """A CLAP: sounds and texts in one space."""
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel

    text = SIZES | {"vocab_size": len(WORDS), "max_position_embeddings": LENGTH + 2, "pad_token_id": 1}
    audio = {
        "spec_size": 32,
        "num_mel_bins": 8,
        "patch_size": 4,
        "patch_stride": [4, 4],
        "window_size": 2,
        "depths": [1, 1],
        "num_attention_heads": [2, 2],
        "patch_embeds_hidden_size": 8,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "enable_fusion": False,
    }
    config = ClapConfig(text_config=text, audio_config=audio, projection_dim=12)
    ClapModel(config).save_pretrained(folder)
    tokenizer(folder, LENGTH)
    ClapFeatureExtractor(
        feature_size=8,
        sampling_rate=16_000,
        max_length_s=1,
        truncation="rand_trunc",
        fft_window_size=512,
        hop_length=160,
    ).save_pretrained(folder)


def _bundle(norm: str, normalised: bool) -> torchaudio.pipelines.Wav2Vec2Bundle:
    """A bundle as torchaudio makes its own, of a model that is small."""
    params = {
        "extractor_mode": norm,
        "extractor_conv_layer_config": [(8, 10, 5), (8, 8, 4)],
        "extractor_conv_bias": False,
        "encoder_embed_dim": 16,
        "encoder_projection_dropout": 0.0,
        "encoder_pos_conv_kernel": 4,
        "encoder_pos_conv_groups": 2,
        "encoder_num_layers": 2,
        "encoder_num_heads": 2,
        "encoder_attention_dropout": 0.0,
        "encoder_ff_interm_features": 32,
        "encoder_ff_interm_dropout": 0.0,
        "encoder_dropout": 0.0,
        "encoder_layer_norm_first": norm == "layer_norm",
        "encoder_layer_drop": 0.0,
        "aux_num_out": None,
    }
    return torchaudio.pipelines.Wav2Vec2Bundle(f"tiny_{norm}.pth", params, 16_000, normalised, "Wav2Vec2")


torchaudio.pipelines.TINY_BASE = _bundle("group_norm", normalised=False)
torchaudio.pipelines.TINY_LARGE = _bundle("layer_norm", normalised=True)


def bundle_base(folder: Path) -> None:
    """The weights of a bundle as WAV2VEC2_BASE."""
    _save_bundle(folder, torchaudio.pipelines.TINY_BASE)


def bundle_large(folder: Path) -> None:
    """The weights of a bundle as HUBERT_LARGE: with a mask, its waves normalised."""
    _save_bundle(folder, torchaudio.pipelines.TINY_LARGE)


def _save_bundle(folder: Path, bundle: torchaudio.pipelines.Wav2Vec2Bundle) -> None:
    folder.mkdir()
    torch.save(torchaudio.models.wav2vec2_model(**bundle._params).state_dict(), folder / "weights.pth")


OPEN_CLIP = {
    "embed_dim": 12,
    "vision_cfg": {"image_size": SIDE, "layers": 2, "width": 64, "patch_size": 8},
    "text_cfg": {"context_length": LENGTH, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}


def open_clip_folder(folder: Path) -> None:
    """A CLIP as open_clip saves it for `local-dir:`."""
    _save_open_clip(folder, OPEN_CLIP)


def open_clip_words(folder: Path) -> None:
    """A CLIP of open_clip with a tokenizer of transformers."""
    text = {"context_length": LENGTH, "vocab_size": len(WORDS), "width": 16, "heads": 2, "layers": 2, "pad_id": 1}
    _save_open_clip(folder, {**OPEN_CLIP, "text_cfg": text | {"hf_tokenizer_name": "own"}})
    tokenizer(folder, LENGTH)


def _save_open_clip(folder: Path, config: dict) -> None:
    import open_clip
    from safetensors.torch import save_file

    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    (folder / "tiny_clip.json").write_text(json.dumps(config))  # as open_clip.add_model_config takes it
    open_clip.add_model_config(folder / "tiny_clip.json")
    model = open_clip.create_model("tiny_clip")
    save_file({name: t.contiguous() for name, t in model.state_dict().items()}, folder / "open_clip_model.safetensors")
