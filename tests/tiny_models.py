"""Small random models of texts and pictures, saved as their own libraries save them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

START, PAD, END, UNKNOWN = "<s>", "<pad>", "</s>", "<unk>"
WORDS = [START, PAD, END, UNKNOWN, "a", "red", "blue", "green", "star", "ring", "on", "the", "left", "right", "two"]
SIDE = 32  # pixels
LENGTH = 24  # tokens
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def tokenizer(folder: Path, limit: int) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token=UNKNOWN))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    PreTrainedTokenizerFast(
        tokenizer_object=words,
        bos_token=START,
        eos_token=END,
        pad_token=PAD,
        unk_token=UNKNOWN,
        model_max_length=limit,
    ).save_pretrained(folder)


def _text_model(folder: Path, kind: str) -> None:
    from transformers import BertConfig, BertModel, RobertaConfig, RobertaModel

    sizes = SIZES | {"vocab_size": len(WORDS), "pad_token_id": 1, "initializer_range": 0.5}
    model = (
        BertModel(BertConfig(**sizes, max_position_embeddings=LENGTH))
        if kind == "bert"
        else RobertaModel(RobertaConfig(**sizes, max_position_embeddings=LENGTH + 2, bos_token_id=0, eos_token_id=2))
    )
    model.save_pretrained(folder)
    tokenizer(folder, LENGTH)


def bert(folder: Path) -> None:
    """A BERT without a word about pooling."""
    _text_model(folder, "bert")


def roberta(folder: Path) -> None:
    """A RoBERTa, whose positions start behind the padding id."""
    _text_model(folder, "roberta")


def sentence_bert(folder: Path) -> None:
    """A BERT with the files of sentence-transformers: first token, unit length, and a limit of its own."""
    _text_model(folder, "bert")
    _sentence_files(folder, "pooling_mode_cls_token")


def _sentence_files(folder: Path, pooling: str) -> None:
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    modules = [
        {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for n, (path, kind) in enumerate(kinds.items())
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 12, "do_lower_case": False}))
    (folder / "1_Pooling").mkdir()
    facts = {"word_embedding_dimension": 16, "pooling_mode_mean_tokens": False, pooling: True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(facts))


def gpt2(folder: Path) -> None:
    """A causal model without a padding token, and without positions behind its 24th."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=len(WORDS), n_embd=16, n_layer=2, n_head=2, n_positions=LENGTH, initializer_range=0.2
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer(folder, LENGTH)


def llama(folder: Path) -> None:
    """A causal model with rotary positions, whose tokenizer names no length."""
    from transformers import LlamaConfig, LlamaModel

    config = LlamaConfig(**SIZES, vocab_size=len(WORDS), num_key_value_heads=1, max_position_embeddings=LENGTH)
    LlamaModel(config).save_pretrained(folder)
    tokenizer(folder, 10**30)


def t5(folder: Path) -> None:
    """An encoder with a decoder: the encoder counts."""
    from transformers import T5Model

    T5Model(_t5_config()).save_pretrained(folder)
    tokenizer(folder, LENGTH)


def t5_alone(folder: Path) -> None:
    """The same without its decoder, as T5EncoderModel saves it."""
    from transformers import T5EncoderModel

    T5EncoderModel(_t5_config()).save_pretrained(folder)
    tokenizer(folder, LENGTH)


def _t5_config() -> Any:
    from transformers import T5Config

    return T5Config(vocab_size=len(WORDS), d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, pad_token_id=1)


def last_token_gpt2(folder: Path) -> None:
    """A causal model that was trained to end in a vector: its files of sentence-transformers say so."""
    gpt2(folder)
    _sentence_files(folder, "pooling_mode_lasttoken")


def sentence_dense(folder: Path) -> None:
    """A model of sentence-transformers with a layer of its own and a prompt before every text."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Dense, Normalize, Pooling, Transformer

    bert(folder)
    words = Transformer(str(folder))
    modules = [words, Pooling(16, pooling_mode="mean", include_prompt=False), Dense(16, 10), Normalize()]
    prompts = {"query": "two green "}
    model = SentenceTransformer(modules=modules, prompts=prompts, default_prompt_name="query", device="cpu")
    model.save(str(folder / "whole"))


def image_processor(folder: Path, kind: str) -> None:
    import transformers

    square = {"height": SIDE, "width": SIDE}
    options = {
        "CLIP": {"size": {"shortest_edge": SIDE}, "crop_size": square},
        "Bit": {"size": {"shortest_edge": SIDE + 5}, "crop_size": square},
        "ConvNext": {"size": {"shortest_edge": SIDE}},
    }
    kwargs = options.get(kind, {"size": square})
    getattr(transformers, f"{kind}ImageProcessor")(**kwargs).save_pretrained(folder)


def vit(folder: Path) -> None:
    """A ViT: its vector is that of the first token."""
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(**SIZES, image_size=SIDE, patch_size=8, initializer_range=0.5)
    ViTModel(config).save_pretrained(folder)
    image_processor(folder, "ViT")


def dinov2(folder: Path) -> None:
    """A DINOv2 on a crop: its vector is that of the first token, behind a last normalisation."""
    from transformers import Dinov2Config, Dinov2Model

    config = Dinov2Config(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=SIDE, patch_size=8, initializer_range=0.5
    )
    Dinov2Model(config).save_pretrained(folder)
    image_processor(folder, "Bit")


def resnet(folder: Path) -> None:
    """A ResNet: its vector is the pooled map."""
    from transformers import ResNetConfig, ResNetModel

    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic")
    ResNetModel(config).save_pretrained(folder)
    image_processor(folder, "ConvNext")


def convnext(folder: Path) -> None:
    """A ConvNeXt: its vector is the pooled map, normalised."""
    from transformers import ConvNextConfig, ConvNextModel

    ConvNextModel(ConvNextConfig(hidden_sizes=[8, 12], depths=[1, 1], num_stages=2)).save_pretrained(folder)
    image_processor(folder, "ConvNext")


def swin(folder: Path) -> None:
    """A Swin: a transformer without a class token; its vector is the mean of the last map."""
    from transformers import SwinConfig, SwinModel

    config = SwinConfig(
        image_size=SIDE, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=4, drop_path_rate=0.0
    )
    SwinModel(config).save_pretrained(folder)
    image_processor(folder, "ViT")


def timm_folder(folder: Path) -> None:
    """timm's smallest ViT, as its own saver writes it for `local-dir:`."""
    _save_timm("test_vit", folder)


def timm_map_folder(folder: Path) -> None:
    """timm's smallest convolutional network, whose states are a map."""
    _save_timm("test_resnet", folder)


def _save_timm(name: str, folder: Path) -> None:
    import timm
    from timm.models import save_for_hf

    save_for_hf(timm.create_model(name, pretrained=False), str(folder), safe_serialization=True)


def resnet18_file(folder: Path) -> None:
    """The weights of a torchvision model in a file."""
    from safetensors.torch import save_file
    from torchvision.models import resnet18

    folder.mkdir()
    save_file(resnet18(weights=None).state_dict(), folder / "weights.safetensors")


def save(maker: Callable[[Path], None], folder: Path, seed: int = 0) -> Path:
    """Save a model of this module or of tiny_sounds below `folder`; the same seed gives the same weights."""
    torch.manual_seed(seed)
    maker(folder / maker.__name__)
    return folder / maker.__name__
