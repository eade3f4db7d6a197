"""What a spec means: cards, towers, folder names, and every way in which a model can be no encoder."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import pytest
import torch
from tiny_models import bert, gpt2, resnet, resnet18_file, roberta, save, sentence_bert, timm_folder, vit
from tiny_sounds import clap, clip, open_clip_folder, open_clip_words, siglip, siglip2, wav2vec2, whisper

from mmdata.encoders import Request, Windows, describe, encode_one, load_encoder
from mmdata.encoders.families import STARTERS, absolute
from mmdata.errors import ConfigError, ModelError
from mmdata.media.audio import Waveform
from mmdata.testing import check_fidelity
from mmdata.types import EncoderCard, Modality, Reason

TEXTS = ("a red star", "two", "unheard words, and a Star!")


@pytest.mark.parametrize("model", [clip, siglip, siglip2])
def test_two_towers_share_a_space(model: Callable[[Path], None], tmp_path: Path) -> None:
    folder = save(model, tmp_path)
    image, text = describe(f"hf:{folder}#image"), describe(f"hf:{folder}#text")
    assert image.space == text.space
    assert image.towers == text.towers == {"image": f"hf:{folder}#image", "text": f"hf:{folder}#text"}
    assert image.fingerprint != text.fingerprint


def test_describing_starters_and_transformers_folders_imports_no_torch(tmp_path: Path) -> None:
    specs = [*STARTERS, *(f"hf:{save(model, tmp_path)}" for model in (sentence_bert, gpt2, vit, wav2vec2, whisper))]
    specs += [f"hf:{save(siglip, tmp_path)}#text", f"hf:{save(clap, tmp_path)}#audio"]
    code = "import sys; from mmdata.encoders import describe\nfor spec in sys.argv[1:]: describe(spec)\n"
    code += "print([name for name in ('torch', 'transformers', 'timm') if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code, *specs], capture_output=True, text=True, timeout=60)
    assert (ran.stdout, ran.stderr) == ("[]\n", "")


def test_a_config_that_leaves_sizes_to_the_library_is_completed(tmp_path: Path) -> None:
    folder = save(siglip, tmp_path)
    kinds = {"text_config": {"model_type": "siglip_text_model"}, "vision_config": {"model_type": "siglip_vision_model"}}

    (folder / "config.json").write_text(json.dumps({"model_type": "siglip", **kinds}))
    card = describe(f"hf:{folder}#text")
    assert card.dim == 768
    assert card.preprocessing == {"max_tokens": 24, "pad_id": 1, "pooling": "projection", "padding": "full"}


def test_a_text_longer_than_the_model_is_cut_and_says_so(tmp_path: Path) -> None:
    encoder = load_encoder(describe(f"hf:{save(roberta, tmp_path)}", Request(windows=Windows.CUT)))
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


def test_fp16_stays_near() -> None:
    exact, rough = (load_encoder(describe("minilm", Request(precision=p))) for p in ("fp32", "fp16"))
    a, b = (np.concatenate([encode_one(encoder, text) for text in TEXTS]) for encoder in (exact, rough))
    check_fidelity(b, a, "fp16")


WRONG_SPECS = {
    "nosuch": "no encoder 'nosuch'; there are:\n  minilm",
    "nosuch:thing": "hf:REPO_OR_FOLDER",
    "hf:": "hf:REPO_OR_FOLDER",
    "json:NoSuchClass": "json has no class NoSuchClass with a describe(name, tower, request)",
    "open_clip:ViT-B-32": "has two towers; say open_clip:ViT-B-32#image or open_clip:ViT-B-32#text",
    "open_clip:ViT-B-32#image": "say which weights: open_clip:ViT-B-32/TAG_OR_FILE; tags: openai",
    "open_clip:nosuch/tag#image": "open_clip has no model 'nosuch'",
    "torchaudio:NOSUCH": "torchaudio has no bundle 'NOSUCH'; there are: HUBERT_ASR_LARGE",
    "minilm#smell": "the tower is one of image, audio, text, not 'smell'",
    "minilm#image": "minilm is of text alone, it has no tower for image",
    "efficientnet-lite0#text": "efficientnet-lite0 is of image alone, it has no tower for text",
    "efficientnet-words#text": "efficientnet-words is of image alone, it has no tower for text",
    "mel-stats#text": "mel-stats is of audio alone, it has no tower for text",
    "x y=minilm": "'x y' cannot name features: it may have letters, digits, _, - and .",
    "=minilm": "'' cannot name features",
    "../up=minilm": "'../up' cannot name features",
    "HF:models/vit": "no encoder 'HF:models/vit'; did you mean 'hf:models/vit'?; there are",
    "hff:x": "no encoder 'hff:x'; did you mean 'hf:x'?; there are",
    "Odd:plain": "did you mean 'odd:plain'?",
    "MiniLM": "did you mean 'minilm'?",
    "torchvision:nosuch": "torchvision has no image model 'nosuch'",
    "torchvision:raft_small": "torchvision has no image model 'raft_small'",
}


@pytest.mark.parametrize("spec", WRONG_SPECS)
def test_a_wrong_spec_is_a_config_error_that_lists_what_there_is(spec: str) -> None:
    with pytest.raises(ConfigError) as caught:
        describe(spec)
    assert WRONG_SPECS[spec] in str(caught.value)


def test_a_joint_model_needs_a_tower_and_a_single_one_has_no_other(tmp_path: Path) -> None:
    joint, sounds, words = save(clip, tmp_path), save(clap, tmp_path), save(bert, tmp_path)
    with pytest.raises(ConfigError, match=f"say hf:{joint}#image or hf:{joint}#text"):
        describe(f"hf:{joint}")
    with pytest.raises(ConfigError, match=f"say hf:{sounds}#audio or hf:{sounds}#text"):
        describe(f"hf:{sounds}#image")
    with pytest.raises(ConfigError, match="is of text alone, it has no tower for image"):
        describe(f"hf:{words}#image")


def _drop_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def _drop_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def _break_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def _make_other_joint(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "blip", "text_config": {}, "vision_config": {}}')


def _add_dense(folder: Path) -> None:
    (folder / "modules.json").write_text('[{"type": "sentence_transformers.models.Dense", "path": "2_Dense"}]')


def _pool_by_weight(folder: Path) -> None:
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_weightedmean_tokens": true}')


BROKEN_TEXT_MODELS = {
    _drop_weights: "holds no .safetensors",
    _drop_config: "config.json is missing",
    _break_config: "is not JSON",
    _make_other_joint: "of models with two towers these work: ",
    _add_dense: "a step that is not known here: Dense",
    _pool_by_weight: "a pooling that is not one of mean, cls, lasttoken, max",
}


@pytest.mark.parametrize("damage", BROKEN_TEXT_MODELS, ids=lambda damage: damage.__name__.strip("_"))
def test_a_folder_that_is_no_encoder_here_is_refused_when_it_is_described(
    damage: Callable[[Path], None], tmp_path: Path
) -> None:
    folder = save(sentence_bert, tmp_path)
    damage(folder)
    with pytest.raises(ModelError, match=BROKEN_TEXT_MODELS[damage]):
        describe(f"hf:{folder}")


@pytest.mark.parametrize("facts", ['{"pooling_mode_cls_token": true}', '{"pooling_mode": "cls"}'])
def test_both_ways_to_write_the_pooling_are_read(facts: str, tmp_path: Path) -> None:
    folder = save(sentence_bert, tmp_path)
    (folder / "1_Pooling" / "config.json").write_text(facts)
    assert describe(f"hf:{folder}").preprocessing["pooling"] == "cls"


def test_cut_weights_are_a_model_error(tmp_path: Path) -> None:
    folder = save(bert, tmp_path)
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-100])
    with pytest.raises(ModelError, match="cannot load the model in"):
        load_encoder(describe(f"hf:{folder}"))


def test_a_model_with_tensors_missing_is_never_filled_with_random_ones(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = save(bert, tmp_path)
    tensors = load_file(folder / "model.safetensors")
    del tensors["encoder.layer.1.output.dense.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 tensors of its model, the first is encoder.layer.1.output"):
        load_encoder(describe(f"hf:{folder}"))


def test_a_model_without_a_tokenizer_is_a_model_error(tmp_path: Path) -> None:
    folder = save(bert, tmp_path)
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(ModelError, match="okenizer"):
        load_encoder(describe(f"hf:{folder}"))


UNREACHABLE = {
    "hf:nobody/nothing": "neither a folder here nor a model that the hub gives",
    "timm:nosuch": "Unknown model",
    "timm:test_vit.nosuchtag": "Invalid pretrained tag",
    "timm:resnet18": "cannot be loaded",
    "timm:local-dir:nowhere": "there is no folder nowhere",
    "torchvision:resnet18/nowhere.safetensors": "cannot be loaded",
    "torchaudio:WAV2VEC2_BASE/nowhere.pth": "there is no file nowhere.pth",
    "open_clip:local-dir:nowhere#image": "cannot be loaded",
    "sentence-transformers:nobody/nothing": "neither a folder here nor a model that the hub gives",
}


@pytest.mark.parametrize("spec", UNREACHABLE)
def test_a_model_that_cannot_be_had_is_a_model_error(spec: str) -> None:
    with pytest.raises(ModelError) as caught:
        describe(spec)
    assert spec.partition("#")[0] in str(caught.value)
    assert UNREACHABLE[spec] in str(caught.value)


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth"])
def test_a_weights_file_that_is_none_is_a_model_error(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"not weights at all")
    with pytest.raises(ModelError, match="cannot be loaded"):
        describe(f"torchvision:resnet18/{tmp_path / name}")


def test_timm_weights_that_are_damaged_are_a_model_error(tmp_path: Path) -> None:
    folder = save(timm_folder, tmp_path)
    (folder / "model.safetensors").write_bytes(b"not weights at all")
    with pytest.raises(ModelError, match="cannot be loaded"):
        describe(f"timm:local-dir:{folder}")


def test_a_folder_of_transformers_is_none_of_timm_and_the_other_way_is_named(tmp_path: Path) -> None:
    folder = save(vit, tmp_path)
    with pytest.raises(ModelError, match=f"is none of timm: its config.json names no architecture; try hf:{folder}"):
        describe(f"timm:local-dir:{folder}")


def test_a_name_may_stand_before_a_spec_and_every_folder_name_is_plain(tmp_path: Path) -> None:
    folder = save(bert, tmp_path)
    assert describe("words=minilm").name == "words"
    assert describe("minilm").name == "minilm"
    assert describe(f"hf:{folder}").name == "hf-bert"
    assert describe("words=minilm").fingerprint == describe("minilm").fingerprint


@pytest.mark.parametrize("way", ["hf:./models/bert", "hf:models/bert/", "hf:../{0}/models/bert", "hf:{1}/models/bert"])
def test_a_local_model_has_one_name_however_its_path_is_written(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(bert, tmp_path / "models")
    monkeypatch.chdir(tmp_path)
    assert describe(way.format(tmp_path.name, tmp_path)).name == "hf-bert"


@pytest.mark.parametrize(
    ("model", "spec"),
    [
        (bert, "hf:{}"),
        (sentence_bert, "sentence-transformers:{}"),
        (timm_folder, "timm:local-dir:{}"),
        (resnet18_file, "torchvision:resnet18/{}/weights.safetensors"),
        (None, "minilm"),
        (None, "mel-stats"),
        (None, "efficientnet-words"),
    ],
)
def test_the_tower_of_a_model_that_has_one_may_be_said_and_another_is_refused(
    model: Callable[[Path], None] | None, spec: str, tmp_path: Path
) -> None:
    spec = spec.format(save(model, tmp_path) if model else "")
    card = describe(spec)
    assert describe(f"{spec}#{card.modality}") == card
    other = next(modality for modality in Modality if modality is not card.modality)
    with pytest.raises(ConfigError, match=f"is of {card.modality} alone, it has no tower for {other}"):
        describe(f"{spec}#{other}")


def test_a_window_longer_than_the_model_hears_is_a_config_error(tmp_path: Path) -> None:
    folder = save(whisper, tmp_path)
    assert describe(f"hf:{folder}", Request(window_seconds=7.5)).preprocessing["window_seconds"] == 7.5
    with pytest.raises(ConfigError, match="a whisper model takes 30 s at once, --window-seconds is 31"):
        describe(f"hf:{folder}", Request(window_seconds=31.0))


def test_a_text_longer_than_a_clip_of_open_clip_becomes_windows_between_start_and_end(tmp_path: Path) -> None:
    encoder = load_encoder(describe(f"open_clip:local-dir:{save(open_clip_folder, tmp_path)}#text"))
    first, second = encoder.prepare("star " * 30)
    assert [first.length, second.length] == [24, 10]  # 22 and 8 stars
    assert (first.data[0], first.data[-1], second.data[0], second.data[-1]) == (49406, 49407, 49406, 49407)
    assert (first.start, first.end, second.start, second.end) == (0, 109, 110, 149)


def test_a_folder_of_open_clip_without_weights_is_never_a_random_model(tmp_path: Path) -> None:
    folder = save(open_clip_folder, tmp_path)
    (folder / "open_clip_model.safetensors").unlink()
    with pytest.raises(ModelError, match="cannot be loaded"):
        describe(f"open_clip:local-dir:{folder}#image")


def test_a_user_s_module_that_lacks_a_package_says_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "needs_much.py").write_text("import no_such_package")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="needs_much:Encoder cannot be imported: No module named 'no_such_package'"):
        describe("needs_much:Encoder")


def test_a_tokenizer_of_transformers_in_open_clip_gives_windows_too(tmp_path: Path) -> None:
    encoder = load_encoder(describe(f"open_clip:local-dir:{save(open_clip_words, tmp_path)}#text"))
    assert encoder.card.windows == Windows.MEAN
    assert [window.length for window in encoder.prepare("a red star " * 9)] == [24, 7]
    (short,) = encoder.prepare("a red star")
    assert (short.length, short.repairs) == (5, ())


def test_a_tokenizer_that_cuts_by_itself_counts_it_as_a_repair(tmp_path: Path) -> None:
    folder = save(open_clip_words, tmp_path)
    path = folder / "open_clip_config.json"
    config = json.loads(path.read_text())
    special = {"bos_token": "ring", "eos_token": "left", "cls_token": "right"}
    config["model_cfg"]["text_cfg"] |= {"tokenizer_mode": "clips", "tokenizer_kwargs": special}
    path.write_text(json.dumps(config))
    encoder = load_encoder(describe(f"open_clip:local-dir:{folder}#text"))
    assert encoder.card.windows == Windows.CUT
    repairs = {n: encoder.prepare("star " * n)[0].repairs for n in (3, 21, 22, 60)}
    assert repairs == {3: (), 21: (), 22: (Reason.TOO_LONG,), 60: (Reason.TOO_LONG,)}


def test_threads_that_share_a_tokenizer_do_not_change_what_the_others_cut(tmp_path: Path) -> None:
    encoder = load_encoder(describe(f"open_clip:local-dir:{save(open_clip_words, tmp_path)}#text"))
    texts = ["a red star", "a " * 60, "two blue ring"] * 100
    alone = [encoder.prepare(text) for text in texts]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(encoder.prepare, texts)) == alone


def test_what_is_read_of_a_picture_is_bytes_wherever_the_library_resizes_and_crops(tmp_path: Path) -> None:
    picture = np.zeros((40, 50, 3), np.uint8)
    specs = [
        f"hf:{save(vit, tmp_path)}",
        f"hf:{save(resnet, tmp_path)}",
        f"hf:{save(clip, tmp_path)}#image",
        f"hf:{save(siglip, tmp_path)}#image",
        "efficientnet-lite0",
        f"timm:local-dir:{save(timm_folder, tmp_path)}",
        f"torchvision:resnet18/{save(resnet18_file, tmp_path)}/weights.safetensors",
        f"open_clip:local-dir:{save(open_clip_folder, tmp_path)}#image",
    ]
    kinds = {spec: load_encoder(describe(spec)).prepare(picture)[0].data.dtype for spec in specs}
    assert kinds == dict.fromkeys(specs, torch.uint8)


def test_a_card_of_another_starter_version_is_not_the_same_space() -> None:
    cards: list[EncoderCard] = [describe(name) for name in STARTERS]
    assert len({card.space for card in cards}) == len(STARTERS) - 1  # words of pictures stand in the space of minilm
    assert replace(cards[0], name="x", versions={}).fingerprint == cards[0].fingerprint


@pytest.mark.parametrize(
    ("model", "spec"),
    [
        (bert, "hf:{}"),
        (sentence_bert, "sentence-transformers:{}"),
        (clip, "hf:{}#image"),
        (timm_folder, "timm:local-dir:{}"),
        (open_clip_folder, "open_clip:local-dir:{}#text"),
        (resnet18_file, "torchvision:resnet18/{}/weights.safetensors"),
    ],
)
def test_a_card_of_a_relative_path_holds_in_any_folder(
    model: Callable[[Path], None], spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save(model, tmp_path)
    monkeypatch.chdir(tmp_path)
    card = describe(spec.format(f"./{folder.name}"))
    assert card.spec == spec.format(folder)
    assert all(str(folder) in tower for tower in card.towers.values())
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert load_encoder(card).card == card


def describing(card: str, body: str = "") -> str:
    """The code of a class whose card is `EncoderCard(card)`."""
    there = "from mmdata.types import EncoderCard, Modality\nfrom mmdata.errors import ConfigError\nclass X:\n"
    return f"{there}  describe = staticmethod(lambda *_: EncoderCard({card}))\n{body}"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("class X:\n  describe = staticmethod(lambda *_: {})", r"mine:X: describe gave \{\}; an EncoderCard"),
        (describing("Modality.TEXT, '3'"), "mine:X: the dim of its card is '3'; an int of 1 at least"),
        (describing("Modality.TEXT, 0"), "mine:X: the dim of its card is 0; an int of 1 at least"),
        (describing("'text', 3"), "mine:X: the modality of its card is 'text'; a mmdata.types.Modality is due"),
        (describing("Modality.TEXT, 3, preprocessing={'x': {1}}"), "its card is .*; plain JSON is due"),
        (describing("Modality.TEXT, 3, preprocessing={'x': float('nan')}"), "its card is .*; plain JSON is due"),
        (
            "class X:\n  describe = staticmethod(lambda *_: 1 / 0)",
            "cannot be described: ZeroDivisionError: .*mine.py:2",
        ),
        ("class X(", "mine:X cannot be imported: SyntaxError"),
    ],
)
def test_a_class_that_is_wrong_is_a_model_error_that_says_where(
    code: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    with pytest.raises(ModelError, match=message):
        describe("mine:X")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("1 / 0", "mine:X cannot be loaded: ZeroDivisionError: .*mine.py:6"),
        ("raise ConfigError('no')", "mine:X cannot be loaded: ConfigError: no, at .*mine.py:6"),
        ("self.batch_size = 4", "mine:X: its card is not the one that it was given; set self.card = card"),
        ("self.card, self.batch_size = 'mine', 4", "mine:X: its card is not the one that it was given"),
        ("self.card = card", "mine:X: its batch_size is None; an int of 1 at least is due"),
        ("self.card, self.batch_size = card, 0", "mine:X: its batch_size is 0; an int of 1 at least is due"),
        ("self.card, self.batch_size = card, '4'", "mine:X: its batch_size is '4'; an int of 1 at least is due"),
    ],
)
def test_a_constructor_that_is_wrong_is_a_model_error_that_says_where(
    body: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(
        describing("Modality.TEXT, 3", f"  def __init__(self, card, device):\n    {body}\n")
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    with pytest.raises(ModelError, match=message):
        load_encoder(describe("mine:X"))


def test_a_module_that_is_not_there_and_a_near_name_are_said() -> None:
    with pytest.raises(ConfigError, match="no encoder 'nowhere:X': no family and no module nowhere; there are"):
        describe("nowhere:X")
    with pytest.raises(ConfigError, match="no encoder 'mini-lm'; did you mean 'minilm'"):
        describe("mini-lm")


def test_a_model_of_pictures_without_its_preprocessing_is_not_taken_for_text(tmp_path: Path) -> None:
    folder = save(vit, tmp_path)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match=r"no preprocessor_config.json, .* with num_channels in its config"):
        describe(f"hf:{folder}")


def test_a_folder_does_not_change_what_the_name_of_a_model_means(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "resnet18").mkdir()
    monkeypatch.chdir(tmp_path)
    names = ["timm:resnet18", "torchvision:resnet18", "open_clip:resnet18#text"]
    assert [absolute(name) for name in names] == names
