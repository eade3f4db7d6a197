"""The one place that sets up torch: threads, memory, precision, device."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from mmdata.errors import ModelError
from mmdata.heap import keep_freed_memory

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def configure() -> None:
    """One CPU thread for each call into torch, and freed memory is kept.

    Encoding runs in as many threads as there are cores, each with a batch of its own: barriers between
    the threads of one batch cost more than they win, the more so while other threads decode (docs/decisions.md).
    """
    torch.set_num_threads(1)
    keep_freed_memory()


def start_lane(device: str) -> None:
    """Set up a thread that encodes: on a GPU its copies and kernels go on a stream of their own."""
    torch.set_num_threads(1)
    if device != "cpu":
        torch.cuda.set_stream(torch.cuda.Stream())  # type: ignore[no-untyped-call]


def stack(rows: Sequence[torch.Tensor], device: str) -> torch.Tensor:
    """Rows to a batch on the device; on a GPU they are put together in the pinned memory they are copied from."""
    if device == "cpu":
        return torch.stack(list(rows))
    pinned = torch.empty((len(rows), *rows[0].shape), dtype=rows[0].dtype, pin_memory=True)
    return torch.stack(list(rows), out=pinned).to(device, non_blocking=True)


def to_device(batch: torch.Tensor, device: str) -> torch.Tensor:
    """On a GPU through pinned memory, so that the copy runs beside what other streams compute."""
    if device == "cpu":
        return batch
    return batch.pin_memory().to(device, non_blocking=True)


def pick_device(gpus: float) -> str:
    """ "cuda" for a worker with a GPU, else "cpu". ModelError where torch does not see the GPU it was given."""
    if gpus == 0:
        return "cpu"
    if not torch.cuda.is_available():
        raise ModelError("a GPU was asked for and torch sees none; ask for the CPU: --gpus-per-worker 0")
    return "cuda"


@contextmanager
def inference(device: str, precision: str) -> Iterator[None]:
    """No gradients, and autocast unless the precision is fp32."""
    with torch.inference_mode():
        if precision == "fp32":
            yield
            return
        with torch.autocast(device, dtype=PRECISIONS[precision]):
            yield


def keep_exact(model: torch.nn.Module, device: str, precision: str) -> None:
    """Leave convolutions of few channels with wide kernels in fp32 on a CPU: with AMX, oneDNN gets them wrong.

    Seen in bf16 for 4 to 24 channels a group and kernels 4, 8 or 16 wide (torch 2.14.1; docs/decisions.md).
    """
    if device != "cpu" or precision == "fp32":
        return
    for module in model.modules():
        if isinstance(module, torch.nn.Conv1d | torch.nn.Conv2d) and _is_doubtful(module):
            module.forward = partial(_in_fp32, module.forward)  # type: ignore[method-assign]


def _is_doubtful(conv: torch.nn.Conv1d | torch.nn.Conv2d) -> bool:
    return 4 <= conv.in_channels // conv.groups < 32 and conv.kernel_size[-1] >= 4


def _in_fp32(forward: Callable[[torch.Tensor], torch.Tensor], value: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", enabled=False):
        return forward(value.float())


def to_numpy(tensor: torch.Tensor) -> Any:
    """`float32`, on the host."""
    return tensor.float().cpu().numpy()
