"""One contract for every encoder: the starters, and small random models through the code that loads real ones."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import libraries
import numpy as np
import pytest
import tiny_models
import tiny_sounds
import torch
from numpy.typing import NDArray
from tiny_models import save

from mmdata.encoders import Encoder, Request, describe, load_encoder
from mmdata.encoders.starters import EFFICIENTNET, weights_folder
from mmdata.encoders.weights import packaged
from mmdata.errors import ConfigError, ModelError
from mmdata.media.audio import Waveform
from mmdata.testing import check_encoder, check_fidelity
from mmdata.types import Modality

IMAGE, AUDIO, TEXT = Modality.IMAGE, Modality.AUDIO, Modality.TEXT
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
VALUES: dict[Modality, Sequence[Any]] = {TEXT: TEXTS, IMAGE: PICTURES, AUDIO: SOUNDS}
TOKENS = 4  # asked of every encoder that has some


@dataclass(frozen=True)
class Case:
    """An encoder: its spec, what it must be, the plain way to call it, and the model to save (none for a starter)."""

    spec: str  # {} is the folder that the model was saved to
    modality: Modality
    dim: int
    library: Callable[[Path, Any], torch.Tensor]
    model: Callable[[Path], None] | None = None
    token_dim: int = 0
    lengths: tuple[int, ...] = ()  # of the token sequences, which the stage shortens where they are not maps

    def __str__(self) -> str:
        tower = self.spec.partition("#")[2]
        return f"{self.spec.partition(':')[0]}-{self.model.__name__}{tower}" if self.model else self.spec


WORDS_READ = (5, 3, 13, 9, 24)  # tokens of TEXTS, with start and end
FRAMES = (398, 148, 616, 33, 1)  # of SOUNDS, 20 samples each but the first
CASES = [
    Case("minilm", TEXT, 384, libraries.unit_mean, None, 384, (5, 3, 13, 10, 62)),
    Case("efficientnet-lite0", IMAGE, 1280, libraries.efficientnet, None, 1280, (4,) * 5),
    Case("mel-stats", AUDIO, 168, libraries.mel_stats),
    Case("hf:{}", TEXT, 16, libraries.mean, tiny_models.bert, 16, WORDS_READ),
    Case("hf:{}", TEXT, 16, libraries.mean, tiny_models.roberta, 16, WORDS_READ),
    Case("hf:{}", TEXT, 16, libraries.mean, tiny_models.gpt2, 16, WORDS_READ),
    Case("hf:{}", TEXT, 16, libraries.mean, tiny_models.llama, 16, WORDS_READ),
    Case("hf:{}", TEXT, 16, libraries.t5_encoder, tiny_models.t5, 16, WORDS_READ),
    Case("hf:{}", TEXT, 16, libraries.t5_encoder, tiny_models.t5_alone, 16, WORDS_READ),
    Case("hf:{}", TEXT, 16, libraries.unit_first, tiny_models.sentence_bert, 16, (5, 3, 12, 9, 12)),
    Case("hf:{}", TEXT, 16, libraries.unit_last, tiny_models.last_token_gpt2, 16, (5, 3, 12, 9, 12)),
    Case("sentence-transformers:{}", TEXT, 16, libraries.sentence, tiny_models.sentence_bert, 16, (5, 3, 12, 9, 12)),
    Case(
        "sentence-transformers:{}/whole",
        TEXT,
        10,
        libraries.sentence_whole,
        tiny_models.sentence_dense,
        16,
        (7, 5, 15, 11, 24),
    ),
    Case("hf:{}", IMAGE, 16, libraries.first_token, tiny_models.vit, 16, (4,) * 5),
    Case("hf:{}", IMAGE, 16, libraries.first_token, tiny_models.dinov2, 16, (4,) * 5),
    Case("hf:{}", IMAGE, 12, libraries.pooled_map, tiny_models.resnet, 12, (4,) * 5),
    Case("hf:{}", IMAGE, 12, libraries.pooled_map, tiny_models.convnext, 12, (4,) * 5),
    Case("hf:{}", IMAGE, 16, libraries.pooled_map, tiny_models.swin, 16, (4,) * 5),
    Case("hf:{}", AUDIO, 16, libraries.mean_frame, tiny_sounds.wav2vec2, 16, FRAMES),
    Case("hf:{}", AUDIO, 16, libraries.mean_frame, tiny_sounds.wav2vec2_layer, 16, FRAMES),
    Case("hf:{}", AUDIO, 16, libraries.mean_frame, tiny_sounds.hubert, 16, FRAMES),
    Case("hf:{}", AUDIO, 16, libraries.mean_frame, tiny_sounds.wavlm, 16, FRAMES),
    Case("hf:{}", AUDIO, 16, libraries.whisper_encoder, tiny_sounds.whisper, 16, (25, 10, 39, 3, 1)),
    Case("hf:{}", AUDIO, 16, libraries.pooled_sound, tiny_sounds.ast, 16, (12,) * 5),
    Case(
        "torchaudio:TINY_BASE/{}/weights.pth",
        AUDIO,
        16,
        libraries.bundle_base,
        tiny_sounds.bundle_base,
        16,
        FRAMES,
    ),
    Case(
        "torchaudio:TINY_LARGE/{}/weights.pth",
        AUDIO,
        16,
        libraries.bundle_large,
        tiny_sounds.bundle_large,
        16,
        FRAMES,
    ),
    Case("hf:{}#image", IMAGE, 12, libraries.joint_image, tiny_sounds.clip, 16, (4,) * 5),
    Case("hf:{}#text", TEXT, 12, libraries.joint_text, tiny_sounds.clip, 16, WORDS_READ),
    Case("hf:{}#image", IMAGE, 12, libraries.joint_image, tiny_sounds.clip_of_one_processor, 16, (4,) * 5),
    Case("hf:{}#image", IMAGE, 16, libraries.joint_image, tiny_sounds.siglip, 16, (4,) * 5),
    Case("hf:{}#text", TEXT, 16, libraries.siglip_text, tiny_sounds.siglip, 16, WORDS_READ),
    Case("hf:{}#image", IMAGE, 16, libraries.joint_image, tiny_sounds.siglip2, 16, (4,) * 5),
    Case("hf:{}#text", TEXT, 16, libraries.siglip_text, tiny_sounds.siglip2, 16, (6, 3, 8, 11, 24)),
    Case("hf:{}#audio", AUDIO, 12, libraries.joint_sound, tiny_sounds.clap),
    Case("hf:{}#text", TEXT, 12, libraries.joint_text, tiny_sounds.clap, 16, WORDS_READ),
    Case(
        "open_clip:local-dir:{}#image", IMAGE, 12, libraries.open_clip_image, tiny_sounds.open_clip_folder, 64, (4,) * 5
    ),
    Case(
        "open_clip:local-dir:{}#text",
        TEXT,
        12,
        libraries.open_clip_text,
        tiny_sounds.open_clip_folder,
        16,
        (5, 3, 13, 10, 24),
    ),
    Case(
        "open_clip:local-dir:{}#text",
        TEXT,
        12,
        libraries.open_clip_text,
        tiny_sounds.open_clip_words,
        16,
        WORDS_READ,
    ),
    Case(
        "tiny=open_clip:tiny_clip/{}/open_clip_model.safetensors#image",
        IMAGE,
        12,
        libraries.open_clip_image,
        tiny_sounds.open_clip_folder,
        64,
        (4,) * 5,
    ),
    Case("tiny=timm:local-dir:{}", IMAGE, 64, libraries.timm_vit, tiny_models.timm_folder, 64, (4,) * 5),
    Case("tiny=timm:local-dir:{}", IMAGE, 96, libraries.timm_resnet, tiny_models.timm_map_folder, 96, (4,) * 5),
    Case(
        "tiny=torchvision:resnet18/{}/weights.safetensors",
        IMAGE,
        512,
        libraries.torchvision_resnet,
        tiny_models.resnet18_file,
        512,
        (4,) * 5,
    ),
]
ONE_A_SPEC = list({case.spec: case for case in CASES if case.model}.values())
WITH_TOKENS = [case for case in CASES if case.token_dim]
WITHOUT_TOKENS = [case for case in CASES if not case.token_dim]
STARTER_FILES = {
    "minilm": weights_folder(),
    "efficientnet-lite0": packaged(*EFFICIENTNET),
    "mel-stats": Path(),
}


@dataclass(frozen=True)
class Loaded:
    case: Case
    spec: str
    encoder: Encoder
    library: NDArray[np.float32]

    @property
    def values(self) -> Sequence[Any]:
        return VALUES[self.case.modality]


@pytest.fixture(scope="module", params=CASES, ids=str)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    """Each encoder of the table, on the way that a user's goes, and what its library gives."""
    case = request.param
    folder = save(case.model, tmp_path_factory.mktemp("m")) if case.model else STARTER_FILES[case.spec]
    spec = case.spec.format(folder)
    with torch.inference_mode():
        library = np.stack([case.library(folder, value).numpy() for value in VALUES[case.modality]])
    yield Loaded(case, spec, load_encoder(describe(spec, Request(tokens=TOKENS if case.token_dim else 0))), library)


def encode(encoder: Encoder, values: Sequence[Any]) -> NDArray[np.float32]:
    return encoder.encode([encoder.prepare(value)[0].data for value in values])


def test_it_keeps_the_contract_and_gives_the_vectors_of_its_library(loaded: Loaded) -> None:
    check_encoder(loaded.encoder, loaded.values, loaded.library)


def test_in_bf16_it_stays_near_its_library(loaded: Loaded) -> None:
    encoder = load_encoder(describe(loaded.spec, Request(precision="bf16")))
    check_fidelity(encode(encoder, loaded.values[:2]), loaded.library[:2], "bf16")


def test_the_card_says_what_comes_out(loaded: Loaded) -> None:
    card = loaded.encoder.card
    lengths = np.linalg.norm(encode(loaded.encoder, loaded.values), axis=1)
    assert (card.modality, card.dim, card.token_dim) == (loaded.case.modality, loaded.case.dim, loaded.case.token_dim)
    assert bool(np.abs(lengths - 1).max() < 1e-4) is card.normalised


@pytest.mark.parametrize("loaded", WITHOUT_TOKENS, indirect=True, ids=str)
def test_tokens_of_an_encoder_that_has_none_are_a_config_error_that_names_it(loaded: Loaded) -> None:
    with pytest.raises(ConfigError, match="has no token vectors; leave --tokens out") as caught:
        describe(loaded.spec, Request(tokens=TOKENS))
    assert str(caught.value).startswith(loaded.spec.removeprefix("tiny="))


@pytest.mark.parametrize("loaded", WITH_TOKENS, indirect=True, ids=str)
def test_tokens_are_as_many_as_patches_words_or_frames(loaded: Loaded) -> None:
    _, tokens = loaded.encoder.encode_tokens([loaded.encoder.prepare(value)[0].data for value in loaded.values])
    assert tuple(len(sequence) for sequence in tokens) == loaded.case.lengths


def test_describing_twice_gives_one_card_without_tokens_unless_asked(loaded: Loaded) -> None:
    first, second = describe(loaded.spec), describe(loaded.spec)
    assert first == second
    assert first.fingerprint == second.fingerprint
    assert (first.tokens, first.token_dim) == (0, 0)


def test_the_dtype_is_part_of_the_fingerprint(loaded: Loaded) -> None:
    other = describe(loaded.spec, Request(dtype="float32"))
    assert (other.dtype, loaded.encoder.card.dtype) == ("float32", "float16")
    assert other.fingerprint != loaded.encoder.card.fingerprint


@pytest.mark.parametrize("case", ONE_A_SPEC, ids=str)
def test_other_weights_give_another_fingerprint_and_the_old_card_is_refused(case: Case, tmp_path: Path) -> None:
    spec = case.spec.format(tmp_path / "here" / case.model.__name__)
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


IN_FOLDERS = [case for case in ONE_A_SPEC if "local-dir:" in case.spec or case.spec.startswith(("hf:", "sentence"))]


@pytest.mark.parametrize("case", IN_FOLDERS, ids=str)
def test_another_setting_or_vocabulary_beside_the_same_weights_is_another_model(case: Case, tmp_path: Path) -> None:
    folder = save(case.model, tmp_path)
    before = describe(case.spec.format(folder))
    inside = Path(case.spec.format(folder).partition(":")[2].removeprefix("local-dir:").partition("#")[0])
    settings = sorted(path for path in inside.rglob("*") if path.suffix in (".json", ".txt", ".model"))
    assert settings
    for path in settings:
        data = path.read_bytes()
        path.write_bytes(data + b"\n")
        after = describe(case.spec.format(folder))
        assert (after.fingerprint != before.fingerprint, after.space != before.space) == (True, True), path
        with pytest.raises(ModelError, match="has changed: its sha256 is"):
            load_encoder(before)
        path.write_bytes(data)
    assert describe(case.spec.format(folder)).fingerprint == before.fingerprint
