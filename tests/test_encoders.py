"""One contract for every encoder: the starters, and small random models through the code that loads real ones."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from tiny_models import save

from mmdata.encoders import STARTERS, Encoder, Request, Windows, describe, load_encoder
from mmdata.encoders.starters import EFFICIENTNET, weights_folder
from mmdata.encoders.weights import packaged
from mmdata.errors import ConfigError, ModelError
from mmdata.media.audio import Waveform
from mmdata.types import EncoderCard, Modality, Reason

SAME = 1e-5  # largest difference of a component, over the length of the vector: float32 sums in another order
COSINE = 0.9999  # with what the library itself gives

RNG = np.random.default_rng(7)
TEXTS = [
    "a red star",
    "two",
    "the ring on the left two blue star star right a",
    "unheard words, and a Star!",
    "a " * 60,
]
PICTURES = [RNG.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in [(64, 64), (40, 90), (33, 31), (3, 5), (1, 1)]]
SOUNDS = [
    Waveform((RNG.normal(0, 0.1, n) + np.sin(np.arange(n) / 9)).astype(np.float32), 16_000)
    for n in (8000, 3000, 12_345, 700, 5)
]
VALUES: dict[Modality, Sequence[Any]] = {Modality.TEXT: TEXTS, Modality.IMAGE: PICTURES, Modality.AUDIO: SOUNDS}
Plain = Callable[[Path, Any], torch.Tensor]


def _transformers(folder: Path) -> Any:
    from transformers import AutoModel

    return AutoModel.from_pretrained(folder).eval()


def _tokens(folder: Path, text: str, **how: Any) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)(text, truncation=True, return_tensors="pt", **how)


def plain_mean(folder: Path, text: str) -> torch.Tensor:
    return _transformers(folder)(**_tokens(folder, text)).last_hidden_state[0].mean(0)


def plain_unit_mean(folder: Path, text: str) -> torch.Tensor:
    states = _transformers(folder)(**_tokens(folder, text, max_length=256)).last_hidden_state
    return torch.nn.functional.normalize(states[0].mean(0), dim=0)


def plain_unit_first(folder: Path, text: str) -> torch.Tensor:
    states = _transformers(folder)(**_tokens(folder, text, max_length=12)).last_hidden_state
    return torch.nn.functional.normalize(states[0, 0], dim=0)


def plain_joint_text(folder: Path, text: str) -> torch.Tensor:
    vector = _transformers(folder).get_text_features(**_tokens(folder, text)).pooler_output
    return torch.nn.functional.normalize(vector[0], dim=0)


def plain_siglip_text(folder: Path, text: str) -> torch.Tensor:
    ids = _tokens(folder, text, padding="max_length")["input_ids"]
    return torch.nn.functional.normalize(_transformers(folder).get_text_features(input_ids=ids).pooler_output[0], dim=0)


def _pixels(folder: Path, picture: NDArray[np.uint8]) -> torch.Tensor:
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained(folder)
    return processor(images=Image.fromarray(picture), return_tensors="pt")["pixel_values"]


def plain_first_token(folder: Path, picture: NDArray[np.uint8]) -> torch.Tensor:
    return _transformers(folder)(_pixels(folder, picture)).last_hidden_state[0, 0]


def plain_pooled_map(folder: Path, picture: NDArray[np.uint8]) -> torch.Tensor:
    return _transformers(folder)(_pixels(folder, picture)).pooler_output[0].flatten()


def plain_joint_image(folder: Path, picture: NDArray[np.uint8]) -> torch.Tensor:
    vector = _transformers(folder).get_image_features(pixel_values=_pixels(folder, picture)).pooler_output
    return torch.nn.functional.normalize(vector[0], dim=0)


def plain_sound(folder: Path, sound: Waveform) -> torch.Tensor:
    from transformers import AutoFeatureExtractor

    wave = np.pad(sound.samples, (0, max(0, 45 - len(sound.samples))))  # (8 - 1) * 5 + 10 samples make one frame
    inputs = AutoFeatureExtractor.from_pretrained(folder)(wave, sampling_rate=16_000, return_tensors="pt")
    return _transformers(folder)(**inputs).last_hidden_state[0].mean(0)


def plain_timm(folder: Path, picture: NDArray[np.uint8]) -> torch.Tensor:
    import timm
    from safetensors.torch import load_file

    model = timm.create_model("test_vit", pretrained=False).eval()
    model.load_state_dict(load_file(folder / "model.safetensors"))
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    states = model.forward_features(transform(Image.fromarray(picture))[None])
    return model.forward_head(states, pre_logits=True)[0]


def plain_torchvision(folder: Path, picture: NDArray[np.uint8]) -> torch.Tensor:
    from safetensors.torch import load_file
    from torchvision.models import ResNet18_Weights, resnet18

    model = resnet18(weights=None).eval()
    model.load_state_dict(load_file(folder / "weights.safetensors"))
    pixels = ResNet18_Weights.DEFAULT.transforms()(Image.fromarray(picture))[None]
    return torch.nn.Sequential(*list(model.children())[:-1])(pixels).flatten()


def plain_efficientnet(folder: Path, picture: NDArray[np.uint8]) -> torch.Tensor:
    import timm
    from torchvision.transforms import functional

    weights = torch.load(folder, weights_only=True)
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    model.load_state_dict(dict(zip(model.state_dict(), weights.values(), strict=True)))
    resized = functional.resize(Image.fromarray(picture), 256, functional.InterpolationMode.BICUBIC)
    cropped = np.asarray(functional.center_crop(resized, 224), np.float32)
    pixels = torch.from_numpy((cropped - 127) / 128).permute(2, 0, 1)[None]
    return model.forward_head(model.forward_features(pixels), pre_logits=True)[0]


def plain_mel_stats(folder: Path, sound: Waveform) -> torch.Tensor:
    from torchaudio.transforms import MFCC

    wave = torch.from_numpy(np.pad(sound.samples, (0, max(0, 512 - len(sound.samples)))))
    cepstra = MFCC(16_000, 20, log_mels=True, melkwargs={"n_fft": 512, "hop_length": 160, "n_mels": 64})
    mels, mfccs = torch.log(cepstra.MelSpectrogram(wave) + 1e-6), cepstra(wave)
    spread = [frames.std(1, correction=0) for frames in (mels, mfccs)]
    return torch.cat([mels.mean(1), mfccs.mean(1), *spread])


@dataclass(frozen=True)
class Case:
    """An encoder: the model to save (none for a starter), its spec, what it must be and the plain way to call it."""

    model: str
    spec: str  # {} is the folder that the model was saved to
    modality: Modality
    dim: int
    plain: Plain

    def __str__(self) -> str:
        return self.model + self.spec.partition("#")[2] if self.model else self.spec


CASES = [
    Case("", "minilm", Modality.TEXT, 384, plain_unit_mean),
    Case("", "efficientnet-lite0", Modality.IMAGE, 1280, plain_efficientnet),
    Case("", "mel-stats", Modality.AUDIO, 168, plain_mel_stats),
    Case("bert", "hf:{}", Modality.TEXT, 16, plain_mean),
    Case("sentence_bert", "hf:{}", Modality.TEXT, 16, plain_unit_first),
    Case("roberta", "hf:{}", Modality.TEXT, 16, plain_mean),
    Case("vit", "hf:{}", Modality.IMAGE, 16, plain_first_token),
    Case("resnet", "hf:{}", Modality.IMAGE, 12, plain_pooled_map),
    Case("convnext", "hf:{}", Modality.IMAGE, 12, plain_pooled_map),
    Case("swin", "hf:{}", Modality.IMAGE, 16, plain_pooled_map),
    Case("wav2vec2", "hf:{}", Modality.AUDIO, 16, plain_sound),
    Case("clip", "hf:{}#image", Modality.IMAGE, 12, plain_joint_image),
    Case("clip", "hf:{}#text", Modality.TEXT, 12, plain_joint_text),
    Case("clip_of_one_processor", "hf:{}#image", Modality.IMAGE, 12, plain_joint_image),
    Case("siglip", "hf:{}#image", Modality.IMAGE, 16, plain_joint_image),
    Case("siglip", "hf:{}#text", Modality.TEXT, 16, plain_siglip_text),
    Case("timm_folder", "tiny=timm:local-dir:{}", Modality.IMAGE, 64, plain_timm),
    Case("resnet18_file", "tiny=torchvision:resnet18/{}/weights.safetensors", Modality.IMAGE, 512, plain_torchvision),
]
SAVED = [case for case in CASES if case.model]
STARTER_FILES = {
    "minilm": weights_folder(),
    "efficientnet-lite0": packaged(*EFFICIENTNET),
    "mel-stats": Path(),
}


@dataclass(frozen=True)
class Loaded:
    case: Case
    folder: Path
    spec: str
    encoder: Encoder


@pytest.fixture(scope="module", params=CASES, ids=str)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    """Each encoder of the table, on the way that a user's goes."""
    case = request.param
    folder = save(case.model, tmp_path_factory.mktemp("m")) if case.model else STARTER_FILES[case.spec]
    spec = case.spec.format(folder)
    yield Loaded(case, folder, spec, load_encoder(describe(spec)))


def encode(encoder: Encoder, values: Sequence[Any]) -> NDArray[np.float32]:
    return encoder.encode([encoder.prepare(value)[0].data for value in values])


def distance(found: NDArray[np.float32], wanted: NDArray[np.float32]) -> float:
    """The largest difference of any component, over the length of its vector."""
    return float((np.abs(found - wanted).max(axis=1) / np.linalg.norm(wanted, axis=1)).max())


def test_the_card_says_what_comes_out(loaded: Loaded) -> None:
    card = loaded.encoder.card
    vectors = encode(loaded.encoder, VALUES[loaded.case.modality])
    assert (card.modality, card.dim) == (loaded.case.modality, loaded.case.dim)
    assert vectors.shape == (5, loaded.case.dim)
    assert vectors.dtype == np.float32
    assert np.isfinite(vectors).all()
    assert loaded.encoder.batch_size >= 1


def test_none_and_one_have_the_same_shape_as_many(loaded: Loaded) -> None:
    values = VALUES[loaded.case.modality]
    for n in (0, 1):
        vectors = encode(loaded.encoder, values[:n])
        assert vectors.shape == (n, loaded.case.dim)
        assert vectors.dtype == np.float32


def test_no_vector_depends_on_its_neighbours(loaded: Loaded) -> None:
    values = VALUES[loaded.case.modality]
    together = encode(loaded.encoder, values)
    alone = np.concatenate([encode(loaded.encoder, [value]) for value in values])
    turned = encode(loaded.encoder, values[::-1])[::-1]
    among_others = encode(loaded.encoder, [values[0], *[values[2]] * 6])[:1]
    assert distance(together, alone) < SAME
    assert distance(turned, alone) < SAME
    assert distance(among_others, alone[:1]) < SAME


def test_vectors_are_those_of_the_library_itself(loaded: Loaded) -> None:
    values = VALUES[loaded.case.modality]
    with torch.inference_mode():
        plain = np.stack([loaded.case.plain(loaded.folder, value).numpy() for value in values])
    found = encode(loaded.encoder, values)
    lengths = np.linalg.norm(found, axis=1), np.linalg.norm(plain, axis=1)
    assert ((found * plain).sum(1) / (lengths[0] * lengths[1])).min() >= COSINE
    assert np.abs(lengths[0] / lengths[1] - 1).max() < 1e-4  # so it is not only the direction


def test_different_inputs_give_different_vectors(loaded: Loaded) -> None:
    first, second = encode(loaded.encoder, VALUES[loaded.case.modality][:2])
    assert distance(first[None], second[None]) > 1000 * SAME


def test_normalised_means_unit_length(loaded: Loaded) -> None:
    lengths = np.linalg.norm(encode(loaded.encoder, VALUES[loaded.case.modality]), axis=1)
    assert bool(np.abs(lengths - 1).max() < SAME) is loaded.encoder.card.normalised


def test_describing_twice_gives_one_card(loaded: Loaded) -> None:
    first, second = describe(loaded.spec), describe(loaded.spec)
    assert first == second == loaded.encoder.card
    assert first.fingerprint == second.fingerprint


def test_dtype_and_precision_are_part_of_the_fingerprint(loaded: Loaded) -> None:
    plain = loaded.encoder.card
    assert describe(loaded.spec, Request(dtype="float32")).fingerprint != plain.fingerprint
    assert describe(loaded.spec, Request(dtype="float32")).dtype == "float32"


@pytest.mark.parametrize("case", SAVED, ids=str)
def test_other_weights_give_another_fingerprint_and_the_old_card_is_refused(case: Case, tmp_path: Path) -> None:
    spec = case.spec.format(tmp_path / "here" / case.model)
    (tmp_path / "here").mkdir()
    save(case.model, tmp_path / "here")
    before = describe(spec)
    (tmp_path / "here").rename(tmp_path / "old")
    (tmp_path / "here").mkdir()
    save(case.model, tmp_path / "here", seed=1)
    after = describe(spec)
    assert after.fingerprint != before.fingerprint
    assert after.space != before.space
    assert after.dim == before.dim
    with pytest.raises(ModelError, match=f"{after.weights_sha256[:12]}, its card says {before.weights_sha256[:12]}"):
        load_encoder(before)


@pytest.mark.parametrize("model", ["clip", "siglip"])
def test_two_towers_share_a_space(model: str, tmp_path: Path) -> None:
    folder = save(model, tmp_path)
    image, text = describe(f"hf:{folder}#image"), describe(f"hf:{folder}#text")
    assert image.space == text.space
    assert image.towers == text.towers == {"image": f"hf:{folder}#image", "text": f"hf:{folder}#text"}
    assert image.fingerprint != text.fingerprint


def test_describing_starters_and_transformers_folders_imports_no_torch(tmp_path: Path) -> None:
    specs = [*STARTERS, *(f"hf:{save(model, tmp_path)}" for model in ("sentence_bert", "vit", "wav2vec2"))]
    specs += [f"hf:{save('siglip', tmp_path)}#text"]
    code = "import sys; from mmdata.encoders import describe\nfor spec in sys.argv[1:]: describe(spec)\n"
    code += "print([name for name in ('torch', 'transformers', 'timm') if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code, *specs], capture_output=True, text=True, timeout=60)
    assert (ran.stdout, ran.stderr) == ("[]\n", "")


def test_a_config_that_leaves_sizes_to_the_library_is_completed(tmp_path: Path) -> None:
    folder = save("siglip", tmp_path)
    kinds = {"text_config": {"model_type": "siglip_text_model"}, "vision_config": {"model_type": "siglip_vision_model"}}
    import json

    (folder / "config.json").write_text(json.dumps({"model_type": "siglip", **kinds}))
    card = describe(f"hf:{folder}#text")
    assert card.dim == 768
    assert card.preprocessing == {"max_tokens": 24, "pad_id": 1, "pooling": "projection", "padding": "full"}


def test_a_text_longer_than_the_model_is_cut_and_says_so(tmp_path: Path) -> None:
    encoder = load_encoder(describe(f"hf:{save('roberta', tmp_path)}", Request(windows=Windows.CUT)))
    (long,), (short,) = encoder.prepare("a red star " * 30), encoder.prepare("a red star")
    assert (long.length, long.repairs) == (24, (Reason.TOO_LONG,))
    assert (short.length, short.repairs) == (5, ())


def test_sound_at_another_rate_is_resampled_first(tmp_path: Path) -> None:
    encoder = load_encoder(describe("mel-stats"))
    time = np.arange(44_100) / 44_100
    tone = Waveform(np.sin(2 * np.pi * 440 * time).astype(np.float32), 44_100)
    same_tone = Waveform(np.sin(2 * np.pi * 440 * time[:16_000] * 44_100 / 16_000).astype(np.float32), 16_000)
    assert encoder.prepare(tone)[0].length == 16_000
    a, b = (encoder.encode([encoder.prepare(wave)[0].data])[0] for wave in (tone, same_tone))
    assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > 0.99  # the ends of a resampled tone differ


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_stays_near(precision: str) -> None:
    exact, rough = (load_encoder(describe("minilm", Request(precision=p))) for p in ("fp32", precision))
    a, b = (encode(encoder, TEXTS[:3]) for encoder in (exact, rough))
    assert b.dtype == np.float32
    assert (a * b).sum(1).min() > 0.995  # bf16 keeps 8 bits


WRONG_SPECS = {
    "nosuch": "no encoder 'nosuch'; there are:\n  minilm",
    "open_clip:ViT-B-32": "hf:REPO_OR_FOLDER",
    "minilm#smell": "the tower is one of image, audio, text, not 'smell'",
    "torchvision:nosuch": "torchvision has no image model 'nosuch'",
    "torchvision:raft_small": "torchvision has no image model 'raft_small'",
}


@pytest.mark.parametrize("spec", WRONG_SPECS)
def test_a_wrong_spec_is_a_config_error_that_lists_what_there_is(spec: str) -> None:
    with pytest.raises(ConfigError) as caught:
        describe(spec)
    assert WRONG_SPECS[spec] in str(caught.value)


def test_a_joint_model_needs_a_tower_and_a_single_one_has_no_other(tmp_path: Path) -> None:
    clip, bert = save("clip", tmp_path), save("bert", tmp_path)
    with pytest.raises(ConfigError, match=f"say hf:{clip}#image or hf:{clip}#text"):
        describe(f"hf:{clip}")
    with pytest.raises(ConfigError, match="is of text alone, it has no tower for image"):
        describe(f"hf:{bert}#image")


def _drop_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def _drop_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def _break_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def _make_seq2seq(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "t5", "d_model": 8, "is_encoder_decoder": true}')


def _make_other_joint(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "blip", "text_config": {}, "vision_config": {}}')


def _add_dense(folder: Path) -> None:
    (folder / "modules.json").write_text('[{"type": "sentence_transformers.models.Dense", "path": "2_Dense"}]')


def _pool_by_maximum(folder: Path) -> None:
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_max_tokens": true}')


BROKEN_TEXT_MODELS = {
    _drop_weights: "holds no .safetensors",
    _drop_config: "config.json is missing",
    _break_config: "is not JSON",
    _make_seq2seq: "an encoder with a decoder",
    _make_other_joint: "of models with two towers these work: ",
    _add_dense: "a step that is not known here: Dense",
    _pool_by_maximum: "a pooling that is not one of mean, cls",
}


@pytest.mark.parametrize("damage", BROKEN_TEXT_MODELS, ids=lambda damage: damage.__name__.strip("_"))
def test_a_folder_that_is_no_encoder_here_is_refused_when_it_is_described(
    damage: Callable[[Path], None], tmp_path: Path
) -> None:
    folder = save("sentence_bert", tmp_path)
    damage(folder)
    with pytest.raises(ModelError, match=BROKEN_TEXT_MODELS[damage]):
        describe(f"hf:{folder}")


@pytest.mark.parametrize("facts", ['{"pooling_mode_cls_token": true}', '{"pooling_mode": "cls"}'])
def test_both_ways_to_write_the_pooling_are_read(facts: str, tmp_path: Path) -> None:
    folder = save("sentence_bert", tmp_path)
    (folder / "1_Pooling" / "config.json").write_text(facts)
    assert describe(f"hf:{folder}").preprocessing["pooling"] == "cls"


def test_cut_weights_are_a_model_error(tmp_path: Path) -> None:
    folder = save("bert", tmp_path)
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-100])
    with pytest.raises(ModelError, match="cannot load the model in"):
        load_encoder(describe(f"hf:{folder}"))


def test_a_model_with_tensors_missing_is_never_filled_with_random_ones(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = save("bert", tmp_path)
    tensors = load_file(folder / "model.safetensors")
    del tensors["encoder.layer.1.output.dense.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 tensors of its model, the first is encoder.layer.1.output"):
        load_encoder(describe(f"hf:{folder}"))


def test_a_model_without_a_tokenizer_is_a_model_error(tmp_path: Path) -> None:
    folder = save("bert", tmp_path)
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(ModelError, match="okenizer"):
        load_encoder(describe(f"hf:{folder}"))


UNREACHABLE = {
    "hf:nobody/nothing": "neither a folder here nor a model that the hub gives",
    "timm:nosuch": "Unknown model",
    "timm:test_vit.nosuchtag": "Invalid pretrained tag",
    "timm:resnet18": "cannot be loaded",
    "timm:local-dir:nowhere": "Config file not found",
    "torchvision:resnet18/nowhere.safetensors": "cannot be loaded",
}


@pytest.mark.parametrize("spec", UNREACHABLE)
def test_a_model_that_cannot_be_had_is_a_model_error(spec: str) -> None:
    with pytest.raises(ModelError) as caught:
        describe(spec)
    assert spec in str(caught.value)
    assert UNREACHABLE[spec] in str(caught.value)


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth"])
def test_a_weights_file_that_is_none_is_a_model_error(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"not weights at all")
    with pytest.raises(ModelError, match="cannot be loaded"):
        describe(f"torchvision:resnet18/{tmp_path / name}")


def test_timm_weights_that_are_damaged_or_do_not_fit_are_a_model_error(tmp_path: Path) -> None:
    folder = save("timm_folder", tmp_path)
    (folder / "model.safetensors").write_bytes(b"not weights at all")
    with pytest.raises(ModelError, match="cannot be loaded"):
        describe(f"timm:local-dir:{folder}")
    (folder / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="cannot be loaded"):
        describe(f"timm:local-dir:{folder}")


def test_a_name_may_stand_before_a_spec_and_every_folder_name_is_plain(tmp_path: Path) -> None:
    folder = save("bert", tmp_path)
    assert describe("words=minilm").name == "words"
    assert describe("minilm").name == "minilm"
    assert describe(f"hf:{folder}").name == "hf-bert"
    assert describe("words=minilm").fingerprint == describe("minilm").fingerprint
    with pytest.raises(ConfigError, match="no encoder"):
        describe("../up=minilm")


def test_a_card_of_another_starter_version_is_not_the_same_space() -> None:
    cards: list[EncoderCard] = [describe(name) for name in STARTERS]
    assert len({card.space for card in cards}) == 3
    assert replace(cards[0], name="x", versions={}).fingerprint == cards[0].fingerprint
