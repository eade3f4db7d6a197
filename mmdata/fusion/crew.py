"""A crew that torch.distributed joins: one process a device."""

from collections.abc import Sequence

import torch
from torch import Tensor, distributed, nn


class Joined:
    """The processes of the group that is set up, this one among them."""

    def __init__(self) -> None:
        self.rank, self.size = distributed.get_rank(), distributed.get_world_size()

    def average(self, tensors: Sequence[Tensor]) -> None:
        """The mean over the crew, in place, in one exchange."""
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        distributed.all_reduce(flat)
        flat /= self.size
        means = torch.split(flat, [tensor.numel() for tensor in tensors])
        for tensor, mean in zip(tensors, means, strict=True):
            tensor.copy_(mean.view_as(tensor))

    def average_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """A batch may hold rows of a task here and none elsewhere, so first all agree on what there is."""
        there = torch.tensor([p.grad is not None for p in parameters], device=parameters[0].device).int()
        distributed.all_reduce(there, distributed.ReduceOp.MAX)
        found = [p for p, any_ in zip(parameters, there.tolist(), strict=True) if any_]
        for parameter in found:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self.average([p.grad for p in found if p.grad is not None])
