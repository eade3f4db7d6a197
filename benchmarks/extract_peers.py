"""Extraction against Ray Data and a torch DataLoader: `python benchmarks/extract_peers.py [PICTURES [ROUNDS]]`.

The same shards, the same model (`efficientnet-lite0`), the same machine; rows a second from the start of the
job (loading the model and starting Ray included) to finished Parquet. Each side runs in a process of its own,
all sides in each round, and the median round counts. "As it ships" is how its own documentation writes it:
Ray Data reads and decodes the shards, maps a transform over the rows and batches through one actor; the
DataLoader has four workers that decode and transform, and batches of 256. "Tuned" gives each the precision,
the batch size, the memory format and the two threads that mmdata has: Ray Data as two actors of one thread that
decode and encode, the DataLoader as one worker that decodes beside torch's two threads.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from mmdata.heap import ENVIRONMENT

SHARDS = 10
BATCH = 16
SHIPPED_BATCH = 256


def main(count: int = 1500, rounds: int = 3) -> None:
    with tempfile.TemporaryDirectory() as folder:
        url = dataset(Path(folder), count)
        seen = [{side: _rate(side, url, Path(folder), count) for side in SIDES} for _ in range(rounds)]
    rates = {side: median(rates[side] for rates in seen) for side in SIDES}
    ours = rates.pop("mmdata")
    print(f"{count} JPEGs of 640 x 480 in {SHARDS} shards, efficientnet-lite0 in fp32: mmdata {ours:.1f} rows/s")
    for side, rate in rates.items():
        ratios = [rates["mmdata"] / rates[side] for rates in seen]
        print(f"  {side}: {rate:.1f} rows/s; mmdata is {median(ratios):.2f} times as fast", flush=True)


def dataset(root: Path, count: int) -> str:
    """Shards of pictures with the detail of photos."""
    from PIL import Image

    from mmdata.cluster import Resources
    from mmdata.config import ShardConfig
    from mmdata.stages.shard import shard

    source, url = root / "source", str(root / "data")
    source.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        small = Image.fromarray(rng.integers(0, 256, (60, 80, 3), np.uint8))
        small.resize((640, 480), Image.Resampling.BICUBIC).save(source / f"{number:05d}.jpg", quality=90)
    shard(ShardConfig(dataset=url, source=str(source), samples_per_shard=count // SHARDS), Resources(workers=0))
    return url


def _rate(side: str, url: str, root: Path, count: int) -> float:
    out = tempfile.mkdtemp(dir=root)
    env = os.environ | (ENVIRONMENT if side == "mmdata" else {})  # as the command does before its first thread
    done = subprocess.run([sys.executable, __file__, side, url, out], env=env, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    seconds, rows = json.loads(done.stdout.splitlines()[-1])
    assert rows == count, f"{side} wrote {rows} of {count} rows"
    return count / seconds


def run_mmdata(url: str, out: str) -> None:
    from mmdata.cluster import Resources
    from mmdata.config import ExtractConfig
    from mmdata.stages.extract import extract

    shutil.rmtree(f"{url}/features", ignore_errors=True)
    extract(ExtractConfig(dataset=url, encoders=("efficientnet-lite0",)), Resources(workers=0))


def transform(image: Any) -> Any:
    """An image of PIL to the model's input, as torchvision's documentation writes it."""
    from torchvision.transforms import v2

    crop = v2.Compose([v2.Resize(256, v2.InterpolationMode.BICUBIC), v2.CenterCrop(224), v2.PILToTensor()])
    return (crop(image.convert("RGB")).float() - 127) / 128


def load_model() -> Any:
    """The network as timm builds it."""
    import timm
    import torch

    from mmdata.encoders.starters import EFFICIENTNET
    from mmdata.encoders.weights import packaged

    weights = torch.load(packaged(*EFFICIENTNET), map_location="cpu", weights_only=True)
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    model.load_state_dict(dict(zip(model.state_dict(), weights.values(), strict=True)))
    model.reset_classifier(0)
    return model.eval()


def transform_row(row: dict[str, Any]) -> dict[str, Any]:
    """One row: the decoded picture becomes the model's input."""
    from PIL import Image

    return {"key": row["__key__"], "pixels": transform(Image.fromarray(row["jpg"])).numpy()}


class RayEncode:
    """A batch of inputs becomes a batch of vectors."""

    def __init__(self) -> None:
        self.model = load_model()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        import torch

        with torch.inference_mode():
            return {"key": batch["key"], "embedding": self.model(torch.from_numpy(batch["pixels"])).numpy()}


class RayDecodeAndEncode:
    """A batch of files becomes a batch of vectors, in one actor and one thread."""

    def __init__(self) -> None:
        import torch

        torch.set_num_threads(1)
        self.model = load_model().to(memory_format=torch.channels_last)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        import io

        import torch
        from PIL import Image

        pixels = torch.stack([transform(Image.open(io.BytesIO(data))) for data in batch["jpg"]])
        with torch.inference_mode():
            vectors = self.model(pixels.contiguous(memory_format=torch.channels_last))
        return {"key": batch["__key__"], "embedding": vectors.numpy()}


def run_ray_data(url: str, out: str) -> None:
    import ray

    ray.init(include_dashboard=False, log_to_driver=False, logging_level="error")
    rows = ray.data.read_webdataset(_tars(url)).map(transform_row)
    rows.map_batches(RayEncode, concurrency=1, batch_size=SHIPPED_BATCH).write_parquet(out)


def run_ray_data_tuned(url: str, out: str) -> None:
    import ray

    ray.init(include_dashboard=False, log_to_driver=False, logging_level="error")
    rows = ray.data.read_webdataset(_tars(url), decoder=None, suffixes=["jpg"])
    encoded = rows.map_batches(RayDecodeAndEncode, concurrency=2, batch_size=BATCH, num_cpus=0.5)
    encoded.write_parquet(out)


def run_data_loader(url: str, out: str) -> None:
    _load_and_encode(url, out, SHIPPED_BATCH, workers=4, channels_last=False)


def run_data_loader_tuned(url: str, out: str) -> None:
    _load_and_encode(url, out, BATCH, workers=1, channels_last=True)


def _load_and_encode(url: str, out: str, batch: int, workers: int, channels_last: bool) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq
    import torch
    import webdataset as wds

    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = load_model().to(memory_format=layout)
    samples = wds.WebDataset(_tars(url), shardshuffle=False).decode("pil").to_tuple("__key__", "jpg")
    loader = torch.utils.data.DataLoader(samples.map_tuple(None, transform), batch_size=batch, num_workers=workers)
    with torch.inference_mode():
        for number, (keys, pixels) in enumerate(loader):
            vectors = model(pixels.contiguous(memory_format=layout)).numpy()
            flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
            pq.write_table(pa.table({"key": list(keys), "embedding": flat}), f"{out}/{number:06d}.parquet")


def _tars(url: str) -> list[str]:
    return sorted(str(path) for path in Path(url, "shards").glob("*.tar"))


def _rows(url: str, out: str) -> int:
    import pyarrow.parquet as pq

    written = list(Path(out).rglob("*.parquet")) or [
        path for path in Path(url, "features/efficientnet-lite0").glob("0*.parquet") if path.stem.isdigit()
    ]
    return sum(pq.read_metadata(path).num_rows for path in written)


SIDES: dict[str, Callable[[str, str], None]] = {
    "mmdata": run_mmdata,
    "Ray Data as it ships": run_ray_data,
    "DataLoader as it ships": run_data_loader,
    "Ray Data tuned": run_ray_data_tuned,
    "DataLoader tuned": run_data_loader_tuned,
}

if __name__ == "__main__":
    if len(sys.argv) < 4:
        main(*(int(number) for number in sys.argv[1:]))
    else:
        side, url, out = sys.argv[1:]
        since = time.perf_counter()
        SIDES[side](url, out)
        print(json.dumps([time.perf_counter() - since, _rows(url, out)]))
