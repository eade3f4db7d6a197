"""Batch norms behind convolutions become part of the convolution: less to compute, the same vectors."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

Pair = tuple[nn.Conv2d, nn.BatchNorm2d]
SAME = 1e-3  # of the largest component: sums in another order


def fold_batch_norms(model: nn.Module, look: Callable[[], torch.Tensor]) -> None:
    """Fold the batch norms that take what a convolution gives, if the vectors of `look` stay what they are.

    `look` runs the model on some input; which pairs there are is seen in that run, not told by names. An activation
    inside the norm (timm's) stays. A model of which something else reads between the two is left as it is.
    """
    before, pairs = _pairs(model, look)
    undo = [_fold(model, *pair) for pair in pairs]
    if (look() - before).abs().max() > SAME * before.abs().max():
        for restore in reversed(undo):
            restore()


def _pairs(model: nn.Module, look: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, list[Pair]]:
    calls: list[nn.Module] = []
    made: list[tuple[torch.Tensor, nn.Conv2d]] = []  # with the tensors, so that each is alive and itself
    found: list[Pair] = []

    def seen(module: nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        calls.append(module)
        if isinstance(module, nn.Conv2d):
            made.append((output, module))
        elif isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            found.extend((conv, module) for tensor, conv in made if tensor is inputs[0])

    hooks = [m.register_forward_hook(seen) for m in model.modules() if isinstance(m, (nn.Conv2d, nn.BatchNorm2d))]
    try:
        vectors = look()
    finally:
        for hook in hooks:
            hook.remove()
    return vectors, [pair for pair in found if all(calls.count(module) == 1 for module in pair)]


def _fold(model: nn.Module, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> Callable[[], None]:
    """What takes it back."""
    assert norm.running_mean is not None and norm.running_var is not None  # noqa: S101
    weight, bias = conv.weight, conv.bias
    means = norm.running_mean, norm.running_var, norm.eps
    conv.weight, conv.bias = fuse_conv_bn_weights(weight, bias, *means, norm.weight, norm.bias)
    rest = nn.Sequential(*norm.children())
    _replace(model, norm, rest)

    def restore() -> None:
        conv.weight, conv.bias = weight, bias
        _replace(model, rest, norm)

    return restore


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if child is old:
                setattr(parent, name, new)
