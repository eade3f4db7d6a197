"""The main job on a corpus of its own making: drawn shapes, sentences about them, and sounds that go with them."""

import io
import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from mmdata import console
from mmdata.errors import Conflict

SIDE = 192  # pixels
RATE = 16_000  # Hz
SECONDS = 1.2

COLOURS = {
    "red": ("#d62f2f", ("red", "crimson", "scarlet")),
    "orange": ("#ee8422", ("orange", "tangerine")),
    "yellow": ("#e9c71d", ("yellow", "golden")),
    "green": ("#2f9e44", ("green", "emerald")),
    "blue": ("#2360c9", ("blue", "azure")),
    "purple": ("#8a3fc2", ("purple", "violet")),
    "pink": ("#ee6fa6", ("pink", "rosy")),
    "black": ("#222222", ("black", "dark")),
}
SHAPES = {
    "circle": ("circle", "disc", "round dot"),
    "square": ("square", "box"),
    "triangle": ("triangle", "three-cornered shape"),
    "star": ("star", "five-pointed star"),
    "cross": ("cross", "plus sign"),
    "ring": ("ring", "hoop"),
}
TEXTURES = {
    "solid": ("solid", "plain", "filled"),
    "striped": ("striped", "stripy"),
    "dotted": ("dotted", "spotted"),
    "hollow": ("hollow", "outlined"),
}
COUNTS = {
    1: ("a", "one", "a single"),
    2: ("two", "a pair of"),
    3: ("three", "a trio of"),
    4: ("four", "a group of four"),
}
PLACES = {
    "left": ((0.27, 0.5), ("on the left", "to the left")),
    "right": ((0.73, 0.5), ("on the right", "to the right")),
    "top": ((0.5, 0.27), ("at the top", "above")),
    "bottom": ((0.5, 0.73), ("at the bottom", "below")),
    "middle": ((0.5, 0.5), ("in the middle", "in the centre")),
}
SPREAD = {
    1: [(0.0, 0.0)],
    2: [(-0.12, 0.0), (0.12, 0.0)],
    3: [(-0.13, 0.1), (0.13, 0.1), (0.0, -0.12)],
    4: [(-0.12, -0.12), (0.12, -0.12), (-0.12, 0.12), (0.12, 0.12)],
}


@dataclass(frozen=True, slots=True)
class Scene:
    """What one sample shows, says and sounds like."""

    colour: str
    shape: str
    texture: str
    count: int
    place: str


def run(folder: Path, samples: int, workers: int, text: str, invoke: Callable[[list[str]], None]) -> None:
    """Write the corpus, then run every command of the main job through `invoke`, printing each before it runs."""
    corpus, data, sheet = str(folder / "corpus"), str(folder / "dataset"), str(folder / "hits.png")
    console.emit(f"writing {samples} samples (a picture, a sentence, a sound each) to {corpus}")
    write_corpus(Path(corpus), samples)
    on = ["--workers", str(workers)]
    encoders = ["--encoder", "minilm", "--encoder", "efficientnet-lite0", "--encoder", "mel-stats"]
    indexes = ["--index", "pictures.image", "--index", "sounds.audio"]
    commands = [
        ["shard", corpus, data, "--samples-per-shard", "150", *on],
        ["extract", data, *encoders, *on],
        ["align", data, "--features", "minilm", "efficientnet-lite0", "--name", "pictures"],
        ["align", data, "--features", "minilm", "mel-stats", "--name", "sounds"],
        ["index", data, "--features", "pictures.image"],
        ["index", data, "--features", "sounds.audio"],
        ["search", data, *indexes, "--text", text, "-k", "5", "--sheet", sheet],
    ]
    for command in commands:
        console.emit(f"\n$ mmdata {shlex.join(command)}")
        invoke(command)
    console.emit(
        f"\nshards, features, heads and indexes are in {data}; the picture of the hits is {sheet}\n"
        f"ask something else: mmdata search {data} --index pictures.image --text '...'"
    )


def write_corpus(folder: Path, samples: int, seed: int = 0) -> None:
    """`samples` of each .png, .txt, .wav and .json below `folder`, a folder a shape; same seed, same bytes.

    What is there with these bytes already is not touched, so a demo that was stopped goes on. Raises Conflict
    when the folder holds samples beyond these.
    """
    surplus = [path for path in folder.glob("*/*.png") if int(path.stem) >= samples]
    if surplus:
        raise Conflict(
            f"{folder} holds more than {samples} samples; ask for as many as before, or choose another folder"
        )
    rng = np.random.default_rng(seed)
    for number in range(samples):
        scene = _scene(rng)
        stem = folder / scene.shape / f"{number:05d}"
        stem.parent.mkdir(parents=True, exist_ok=True)
        _write(stem.with_suffix(".png"), _png(_draw(scene, rng)))
        _write(stem.with_suffix(".txt"), f"{_sentence(scene, rng)}\n".encode())
        _write(stem.with_suffix(".wav"), _wav(_sound(scene, rng)))
        _write(stem.with_suffix(".json"), json.dumps({"colour": scene.colour, "count": scene.count}).encode())


def _write(path: Path, data: bytes) -> None:
    if not path.exists() or path.read_bytes() != data:
        path.write_bytes(data)


def _scene(rng: np.random.Generator) -> Scene:
    def pick(table: dict[str, object] | list[str]) -> str:
        return str(rng.choice(sorted(table)))

    return Scene(
        pick(list(COLOURS)), pick(list(SHAPES)), pick(list(TEXTURES)), int(rng.integers(1, 5)), pick(list(PLACES))
    )


def _sentence(scene: Scene, rng: np.random.Generator) -> str:
    def word(words: tuple[str, ...]) -> str:
        return str(rng.choice(words))

    noun = word(SHAPES[scene.shape])
    plural = noun if scene.count == 1 else noun + ("es" if noun.endswith(("x", "s")) else "s")
    looks = [word(COLOURS[scene.colour][1]), word(TEXTURES[scene.texture])]
    if rng.random() < 0.5:
        looks.reverse()
    count, place = word(COUNTS[scene.count]), word(PLACES[scene.place][1])
    shapes = f"{count} {' '.join(looks)} {plural}"
    forms = (f"{shapes} {place}", f"{place} there {'is' if scene.count == 1 else 'are'} {shapes}", f"{shapes}, {place}")
    return (
        word(forms).replace("a orange", "an orange").replace("a emerald", "an emerald").replace("a azure", "an azure")
    )


def _draw(scene: Scene, rng: np.random.Generator) -> Image.Image:
    image = Image.new("RGB", (SIDE, SIDE), tuple(int(v) for v in rng.integers(225, 256, 3)))
    (x, y), _ = PLACES[scene.place]
    radius = int(SIDE * (0.2 if scene.count == 1 else 0.11) * rng.uniform(0.85, 1.1))
    for dx, dy in SPREAD[scene.count]:
        mask = _outline(scene.shape, radius)
        corner = (int((x + dx) * SIDE) - radius, int((y + dy) * SIDE) - radius)
        image.paste(_filling(scene, radius, mask), corner, mask)
    return image


def _outline(shape: str, radius: int) -> Image.Image:
    side = 2 * radius
    mask = Image.new("L", (side, side))
    draw = ImageDraw.Draw(mask)
    third = side / 3
    if shape in ("circle", "ring"):
        draw.ellipse((0, 0, side - 1, side - 1), 255)
    elif shape == "cross":
        draw.rectangle((third, 0, 2 * third, side), 255)
        draw.rectangle((0, third, side, 2 * third), 255)
    elif shape == "square":
        draw.rectangle((side * 0.08, side * 0.08, side * 0.92, side * 0.92), 255)
    else:
        draw.polygon(_corners(shape, radius), 255)
    if shape == "ring":
        draw.ellipse((third * 0.8, third * 0.8, side - third * 0.8, side - third * 0.8), 0)
    return mask


def _corners(shape: str, radius: int) -> list[tuple[float, float]]:
    count, inner = (10, 0.42) if shape == "star" else (3, 1.0)
    angles = np.pi * (2 * np.arange(count) / count - 0.5)
    lengths = radius * np.where(np.arange(count) % 2, inner, 1.0)
    return [(radius + r * np.cos(a), radius + r * np.sin(a)) for a, r in zip(angles, lengths, strict=True)]


def _filling(scene: Scene, radius: int, mask: Image.Image) -> Image.Image:
    side, colour = 2 * radius, COLOURS[scene.colour][0]
    fill = Image.new("RGB", (side, side), colour)
    draw = ImageDraw.Draw(fill)
    step = max(6, radius // 3)
    if scene.texture == "striped":
        for x in range(0, side, step):
            draw.rectangle((x, 0, x + step // 2 - 1, side), "white")
    elif scene.texture == "dotted":
        for x in range(step // 2, side, step):
            for y in range(step // 2, side, step):
                draw.ellipse((x - step // 5 - 1, y - step // 5 - 1, x + step // 5 + 1, y + step // 5 + 1), "white")
    elif scene.texture == "hollow":
        small = mask.resize((int(side * 0.72),) * 2)
        fill.paste("white", (int(side * 0.14),) * 2, small)
    return fill


def _sound(scene: Scene, rng: np.random.Generator) -> NDArray[np.float32]:
    """As many notes as there are shapes: the colour is the pitch, the shape the timbre, the texture the rhythm."""
    pitch = 220.0 * 2 ** (list(COLOURS).index(scene.colour) / 4) * rng.uniform(0.99, 1.01)
    time = np.arange(int(RATE * SECONDS / scene.count)) / RATE
    wave = _timbre(scene.shape, pitch, time)
    wobble = {"solid": 0.0, "striped": 12.0, "dotted": 30.0, "hollow": 5.0}[scene.texture]
    level = 1.0 if not wobble else 0.55 + 0.45 * np.sign(np.sin(2 * np.pi * wobble * time))
    note = wave * level * np.exp(-2.5 * time * scene.count)
    notes = np.tile(note, scene.count) * 0.5
    return (notes + rng.normal(0, 0.002, len(notes))).astype(np.float32)


def _timbre(shape: str, pitch: float, time: NDArray[np.float64]) -> NDArray[np.float64]:
    tables: dict[str, dict[float, float]] = {
        "circle": {1: 1.0},
        "square": {1: 1.0, 3: 1 / 3, 5: 1 / 5, 7: 1 / 7},
        "triangle": {1: 1.0, 3: -1 / 9, 5: 1 / 25},
        "star": {n: 1 / n for n in range(1, 9)},
        "cross": {1: 0.6, 1.5: 0.6, 2.51: 0.5},
        "ring": {2.0: 0.8, 2.76: 0.6, 5.4: 0.4},
    }
    wave = np.zeros_like(time)
    for n, gain in tables[shape].items():
        wave += gain * np.sin(2 * np.pi * pitch * n * time)
    return wave


def _png(image: Image.Image) -> bytes:
    sink = io.BytesIO()
    image.save(sink, "PNG")
    return sink.getvalue()


def _wav(samples: NDArray[np.float32]) -> bytes:
    sink = io.BytesIO()
    soundfile.write(sink, samples, RATE, format="WAV", subtype="PCM_16")
    return sink.getvalue()
