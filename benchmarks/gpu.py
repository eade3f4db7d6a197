"""Extraction on a GPU against its two ceilings: `python benchmarks/gpu.py [--check]`.

ViT-B/32 and ViT-L/14 (random weights, through `hf:`) over tars of JPEGs of 256 x 256 and of 640 x 480. A line gives
images a second of: the encoder alone, on inputs that lie on the device; decoding alone, a thread a core; decoding
smaller (`min_side` of twice what the model sees); decoding on the device (torchvision.io.decode_jpeg); and whole
extractions, in this process and with several workers on Ray that share the card, from the first worker's readiness
to the end, with the share of the smaller ceiling and the use of the card that nvidia-smi reports meanwhile.
`--check` runs all that works without a GPU, on the CPU with a tiny model and few pictures.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

SIZES = {"256 x 256": (256, 256), "640 x 480": (640, 480)}
DISTINCT = 500  # pictures; the tars repeat them
DECODED = 2000  # pictures of the bare decoding loops
BATCHES = 20  # of the bare encoder
WORKERS = {"in-process": 0, "2 workers": 2, "4 workers": 4}


@dataclass(frozen=True)
class Vit:
    """The measures of a ViT, and how many pictures it is shown."""

    hidden: int
    layers: int
    heads: int
    patch: int
    count: int


MODELS = {"ViT-B/32": Vit(768, 12, 12, 32, 40_000), "ViT-L/14": Vit(1024, 24, 16, 14, 10_000)}
TINY = {"tiny ViT": Vit(32, 2, 2, 32, 96)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="on the CPU, tiny")
    parser.add_argument("--model", choices=MODELS, help="only this one")
    parser.add_argument("side", nargs="*", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(_extraction(*arguments.side)))
        return
    chosen = TINY if arguments.check else {n: m for n, m in MODELS.items() if arguments.model in (None, n)}
    gpus = 0.0 if arguments.check else 1.0
    with tempfile.TemporaryDirectory() as folder:
        most = max(model.count for model in chosen.values())
        for label, size in SIZES.items():
            source = _pictures(Path(folder, label.replace(" ", "")), size, most)
            for name, model in chosen.items():
                url = _shards(source, model.count)
                _report(f"{name}, {label}", _save(Path(folder, "model"), model), url, model.count, gpus)


def _pictures(folder: Path, size: tuple[int, int], count: int) -> Path:
    """JPEGs with the detail of photos; the later ones are links to the first."""
    from PIL import Image

    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        path = folder / f"{number:06d}.jpg"
        if number < DISTINCT:
            small = Image.fromarray(rng.integers(0, 256, (size[1] // 8, size[0] // 8, 3), np.uint8))
            small.resize(size, Image.Resampling.BICUBIC).save(path, quality=90)
        else:
            path.hardlink_to(folder / f"{number % DISTINCT:06d}.jpg")
    return folder


def _shards(source: Path, count: int) -> str:
    from mmdata.cluster import Resources
    from mmdata.config import ShardConfig
    from mmdata.stages.shard import shard

    url, part = f"{source}-{count}", Path(f"{source}-{count}-files")
    if not part.exists():
        part.mkdir()
        for path in sorted(source.iterdir())[:count]:
            (part / path.name).hardlink_to(path)
        config = ShardConfig(dataset=url, source=str(part), samples_per_shard=max(count // 16, 1), validate_media=False)
        shard(config, Resources(workers=0))
    return url


def _save(folder: Path, model: Vit) -> str:
    """A ViT of random weights and its processor; what the whole of its features is worth is not asked here."""
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    shutil.rmtree(folder, ignore_errors=True)
    config = ViTConfig(
        hidden_size=model.hidden,
        num_hidden_layers=model.layers,
        num_attention_heads=model.heads,
        intermediate_size=4 * model.hidden,
        patch_size=model.patch,
        image_size=224,
    )
    ViTModel(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": 224, "width": 224}).save_pretrained(folder)
    return f"vit=hf:{folder}"


def _report(what: str, spec: str, url: str, count: int, gpus: float) -> None:
    device, precision = ("cuda", "bf16") if gpus else ("cpu", "fp32")
    encoder = _encoder(spec, device, precision)
    parts = _parts(url)
    encode, decode = _bare_encoder(encoder), _bare_decoding(encoder, parts, 0)
    print(f"{what} ({device}, {precision}, batches of {encoder.batch_size}):")
    print(f"  encoder on resident tensors {encode:.0f}/s")
    print(f"  decoding {decode:.0f}/s, smaller {_bare_decoding(encoder, parts, 448):.0f}/s", end="")
    print(f", on the device {_decoding_on_device(parts):.0f}/s" if gpus else "", flush=True)
    del encoder
    ceiling = min(encode, decode) if gpus else 1 / (1 / encode + 1 / decode)  # one CPU does both
    for side, workers in WORKERS.items():
        with _card_use() as use:
            command = [sys.executable, __file__, str(workers), str(gpus), url, spec]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
        seen = json.loads(done.stdout.splitlines()[-1])
        rate = count / seen["seconds"]
        busy = f", card {mean(use):.0f} % in use" if use else ""
        print(f"  {side}: {rate:.0f}/s, {rate / ceiling:.2f} of the smaller ceiling{busy}", flush=True)


def _encoder(spec: str, device: str, precision: str) -> Any:
    from mmdata.encoders import Request, describe, load_encoder
    from mmdata.encoders.device import configure

    configure()
    return load_encoder(describe(spec, Request(precision=precision)), device)


def _bare_encoder(encoder: Any) -> float:
    """Images a second of batches that lie on the device, as floats, one after the other."""
    import torch

    from mmdata.encoders.device import inference

    pixels = torch.randn(encoder.batch_size, 3, 224, 224, device=encoder.device)
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    with inference(encoder.device, encoder.card.precision):
        for repeats in (3, BATCHES):  # the first ones warm up
            since = time.perf_counter()
            for _ in range(repeats):
                encoder.forward(pixels)
            if encoder.device != "cpu":
                torch.cuda.synchronize()
    return BATCHES * encoder.batch_size / (time.perf_counter() - since)


def _bare_decoding(encoder: Any, parts: list[bytes], min_side: int) -> float:
    """Images a second decoded and prepared, a thread a core."""
    from mmdata.cluster import threads
    from mmdata.media import decode
    from mmdata.types import Modality

    def ready(part: bytes) -> None:
        encoder.prepare(decode(Modality.IMAGE, part, min_side=min_side).value)

    with ThreadPoolExecutor(threads()) as pool:
        since = time.perf_counter()
        list(pool.map(ready, parts))
        return len(parts) / (time.perf_counter() - since)


def _decoding_on_device(parts: list[bytes], batch: int = 64) -> float:
    """Images a second by nvJPEG, resized on the device."""
    import torch
    from torchvision.io import decode_jpeg
    from torchvision.transforms.v2.functional import resize

    arrays = [torch.frombuffer(bytearray(part), dtype=torch.uint8) for part in parts]
    for chosen in (arrays[:batch], arrays):  # the first ones warm up
        since = time.perf_counter()
        for start in range(0, len(chosen), batch):
            for picture in decode_jpeg(chosen[start : start + batch], device="cuda"):
                resize(picture, [224, 224], antialias=True)
        torch.cuda.synchronize()
    return len(arrays) / (time.perf_counter() - since)


def _parts(url: str) -> list[bytes]:
    from itertools import islice

    from mmdata.storage.dataset import Dataset
    from mmdata.storage.receipts import read_receipts
    from mmdata.storage.shards import read_parts, read_sample_table
    from mmdata.types import Modality

    dataset = Dataset.open(url)
    found = (
        bytes(parts[Modality.IMAGE])
        for name, receipt in read_receipts(dataset.store, "shards").items()
        for _, parts in read_parts(dataset, name, read_sample_table(dataset, receipt), {Modality.IMAGE})
    )
    return list(islice(found, DECODED))


def _extraction(workers: str, gpus: str, url: str, spec: str) -> dict[str, float]:
    """Seconds from the first worker's readiness; workers on Ray share the card and the cores."""
    from mmdata.cluster import default_resources
    from mmdata.config import ExtractConfig
    from mmdata.stages.extract import extract

    shutil.rmtree(f"{url}/features", ignore_errors=True)
    count = int(workers)
    share = float(gpus) / max(count, 1)
    summary = extract(ExtractConfig(dataset=url, encoders=(spec,)), default_resources(count, None, share, None))
    fixed = summary.phases["start"] + summary.phases["end"]
    return {"seconds": summary.seconds - fixed, "fixed": fixed}


@contextmanager
def _card_use() -> Iterator[list[float]]:
    """Fills, at its end, with the percentages that nvidia-smi saw while the card was in use; none without a card."""
    use: list[float] = []
    if not shutil.which("nvidia-smi"):
        yield use
        return
    command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--loop-ms=200"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watcher:
        try:
            yield use
        finally:
            watcher.terminate()
            seen = [float(line) for line in watcher.communicate()[0].split() if line.replace(".", "").isdigit()]
            first, last = (next((n for n, v in enumerate(part) if v), 0) for part in (seen, seen[::-1]))
            use += seen[first : len(seen) - last]


if __name__ == "__main__":
    main()
