"""Small random models, saved to disk as their own libraries save them: what the encoder families load."""

import json
from collections.abc import Callable
from pathlib import Path

import torch

START, PAD, END, UNKNOWN = "<s>", "<pad>", "</s>", "<unk>"
WORDS = [START, PAD, END, UNKNOWN, "a", "red", "blue", "green", "star", "ring", "on", "the", "left", "right", "two"]
SIDE = 32  # pixels
LENGTH = 24  # tokens


def _tokenizer(folder: Path, limit: int) -> None:
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

    sizes = {
        "vocab_size": len(WORDS),
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "pad_token_id": 1,
        "initializer_range": 0.5,
    }
    model = (
        BertModel(BertConfig(**sizes, max_position_embeddings=LENGTH))
        if kind == "bert"
        else RobertaModel(RobertaConfig(**sizes, max_position_embeddings=LENGTH + 2, bos_token_id=0, eos_token_id=2))
    )
    model.save_pretrained(folder)
    _tokenizer(folder, LENGTH)


def bert(folder: Path) -> None:
    """A BERT without a word about pooling."""
    _text_model(folder, "bert")


def roberta(folder: Path) -> None:
    """A RoBERTa, whose positions start behind the padding id."""
    _text_model(folder, "roberta")


def sentence_bert(folder: Path) -> None:
    """A BERT with the files of sentence-transformers: first token, unit length, and a limit of its own."""
    _text_model(folder, "bert")
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    modules = [
        {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for n, (path, kind) in enumerate(kinds.items())
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 12, "do_lower_case": False}))
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 16, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))


def _image_processor(folder: Path, kind: str) -> None:
    import transformers

    size = {"shortest_edge": SIDE} if kind in ("CLIP", "ConvNext") else {"height": SIDE, "width": SIDE}
    crop = {"crop_size": {"height": SIDE, "width": SIDE}} if kind == "CLIP" else {}
    getattr(transformers, f"{kind}ImageProcessor")(size=size, **crop).save_pretrained(folder)


def vit(folder: Path) -> None:
    """A ViT: its vector is that of the first token."""
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=SIDE,
        patch_size=8,
        initializer_range=0.5,
    )
    ViTModel(config).save_pretrained(folder)
    _image_processor(folder, "ViT")


def resnet(folder: Path) -> None:
    """A ResNet: its vector is the pooled map."""
    from transformers import ResNetConfig, ResNetModel

    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic")
    ResNetModel(config).save_pretrained(folder)
    _image_processor(folder, "ConvNext")


def convnext(folder: Path) -> None:
    """A ConvNeXt: its vector is the pooled map, normalised."""
    from transformers import ConvNextConfig, ConvNextModel

    ConvNextModel(ConvNextConfig(hidden_sizes=[8, 12], depths=[1, 1], num_stages=2)).save_pretrained(folder)
    _image_processor(folder, "ConvNext")


def swin(folder: Path) -> None:
    """A Swin: a transformer without a class token; its vector is the mean of the last map."""
    from transformers import SwinConfig, SwinModel

    config = SwinConfig(
        image_size=SIDE, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=4, drop_path_rate=0.0
    )
    SwinModel(config).save_pretrained(folder)
    _image_processor(folder, "ViT")


def wav2vec2(folder: Path) -> None:
    """A wav2vec 2.0 of two convolutions."""
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

    config = Wav2Vec2Config(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=(8, 8),
        conv_stride=(5, 4),
        conv_kernel=(10, 8),
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
    )
    Wav2Vec2Model(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)


def _joint(folder: Path, kind: str) -> None:
    import transformers

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    limits = {"vocab_size": len(WORDS), "max_position_embeddings": LENGTH}
    text = sizes | limits | {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
    config = getattr(transformers, f"{kind}Config")(
        text_config=text, vision_config=sizes | {"image_size": SIDE, "patch_size": 8}
    )
    if kind == "CLIP":
        config.projection_dim = 12
    getattr(transformers, f"{kind}Model")(config).save_pretrained(folder)
    _tokenizer(folder, LENGTH)


def clip(folder: Path) -> None:
    """A CLIP: two towers, one space."""
    _joint(folder, "CLIP")
    _image_processor(folder, "CLIP")


def clip_of_one_processor(folder: Path) -> None:
    """A CLIP whose picture processor is written as a part of `processor_config.json`, as transformers 5 does."""
    from transformers import AutoTokenizer, CLIPImageProcessor, CLIPProcessor

    _joint(folder, "CLIP")
    pictures = CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    CLIPProcessor(image_processor=pictures, tokenizer=AutoTokenizer.from_pretrained(folder)).save_pretrained(folder)


def siglip(folder: Path) -> None:
    """A SigLIP: its text tower reads the last of all positions, so a text is always padded to the full length."""
    _joint(folder, "Siglip")
    _image_processor(folder, "Siglip")


def timm_folder(folder: Path) -> None:
    """timm's smallest ViT, as its own saver writes it for `local-dir:`."""
    import timm
    from timm.models import save_for_hf

    save_for_hf(timm.create_model("test_vit", pretrained=False), str(folder), safe_serialization=True)


def resnet18_file(folder: Path) -> None:
    """The weights of a torchvision model in a file."""
    from safetensors.torch import save_file
    from torchvision.models import resnet18

    folder.mkdir()
    save_file(resnet18(weights=None).state_dict(), folder / "weights.safetensors")


SAVED: dict[str, Callable[[Path], None]] = {
    maker.__name__: maker
    for maker in (
        bert,
        roberta,
        sentence_bert,
        vit,
        resnet,
        convnext,
        swin,
        wav2vec2,
        clip,
        clip_of_one_processor,
        siglip,
        timm_folder,
        resnet18_file,
    )
}


def save(name: str, folder: Path, seed: int = 0) -> Path:
    """Save one of the models below `folder`; the same seed gives the same weights."""
    torch.manual_seed(seed)
    SAVED[name](folder / name)
    return folder / name
