"""The one place that sets up torch: threads, memory, precision, device."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc


def configure(threads: int) -> None:
    """Use `threads` CPU threads, and let glibc keep freed memory rather than give it back at every layer.

    Giving back costs a page fault for each page of each activation: efficientnet-lite0 ran 1.5 to 1.9 times
    faster without it (docs/decisions.md).
    """
    torch.set_num_threads(threads)
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        for option in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD):
            getattr(libc, "mallopt", lambda *_: 0)(option, 1 << 30)


def pick_device(gpus: float) -> str:
    """"cuda" where the worker was given a GPU and torch sees one, else "cpu"."""
    return "cuda" if gpus > 0 and torch.cuda.is_available() else "cpu"


@contextmanager
def inference(device: str, precision: str) -> Iterator[None]:
    """No gradients, and autocast unless the precision is fp32."""
    with torch.inference_mode():
        if precision == "fp32":
            yield
            return
        with torch.autocast(device, dtype=PRECISIONS[precision]):
            yield


def to_numpy(tensor: torch.Tensor) -> Any:
    """`float32`, on the host."""
    return tensor.float().cpu().numpy()
