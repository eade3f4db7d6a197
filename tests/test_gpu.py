"""On a GPU, features are those of the CPU, and memory that runs out halves the batch."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import bert, resnet, save, vit

from mmdata.encoders import Request, describe, load_encoder
from mmdata.encoders.device import pick_device, stack
from mmdata.stages.encode import GPU_LANES
from mmdata.stages.lanes import Lanes, Line, Unit
from mmdata.testing import check_encoder

pytestmark = pytest.mark.gpu
RNG = np.random.default_rng(0)
PICTURES = [RNG.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in [(64, 64), (40, 90), (33, 31), (3, 5)]]
TEXTS = ["a red star", "two", "the ring on the left two blue star star right a", "a " * 20]


@pytest.mark.parametrize(("model", "values"), [(vit, PICTURES), (resnet, PICTURES), (bert, TEXTS)])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_gpu_gives_the_vectors_of_the_cpu(model, values: list, precision: str, tmp_path: Path) -> None:
    spec = f"hf:{save(model, tmp_path)}"
    plain = load_encoder(describe(spec))
    wanted = plain.encode([plain.prepare(value)[0].data for value in values])
    check_encoder(load_encoder(describe(spec, Request(precision=precision)), pick_device(1.0)), values, wanted)


def test_a_batch_is_copied_from_pinned_memory() -> None:
    rows = [torch.full((3, 4), n, dtype=torch.uint8) for n in range(5)]
    assert torch.equal(stack(rows, "cuda").cpu(), torch.stack(rows))


def test_memory_that_runs_out_halves_the_batch_and_loses_nothing(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from mmdata.encoders.device import start_lane

    encoder = load_encoder(describe(f"hf:{save(vit, tmp_path)}"), "cuda")
    inputs = [encoder.prepare(picture)[0] for picture in PICTURES] * 2048
    wanted = encoder.encode([ready.data for ready in inputs[:4]])
    torch.cuda.empty_cache()
    held = torch.cuda.memory_allocated() + (64 << 20)
    torch.cuda.set_per_process_memory_fraction(held / torch.cuda.get_device_properties(0).total_memory)
    try:
        pool = ThreadPoolExecutor(GPU_LANES, initializer=start_lane, initargs=("cuda",))
        lanes = Lanes(pool, GPU_LANES, {encoder.card.name: 8192})
        line = Line(encoder, lanes)
        for row, ready in enumerate(inputs):
            line.put(Unit(row, 0, ready))
        done = line.finish()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert lanes.batch_sizes[encoder.card.name] < 8192
    assert sum(len(part.units) for part in done) == len(inputs)
    for part in done:
        rows = [unit.row % 4 for unit in part.units]
        np.testing.assert_allclose(part.vectors, wanted[rows], atol=1e-4)
