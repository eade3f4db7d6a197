"""Convolutions at load: norms are folded into them, and those that bf16 gets wrong are left out of it."""

import pytest
import torch
from torch import nn

from mmdata.encoders.device import inference, keep_exact
from mmdata.encoders.folding import fold_batch_norms

PIXELS = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def norm() -> nn.BatchNorm2d:
    """With statistics and weights that are not those of a new one."""
    made = nn.BatchNorm2d(4)
    for tensor in (made.running_mean, made.running_var, made.weight, made.bias):
        tensor.data.uniform_(0.5, 2)
    return made


class Net(nn.Module):
    """A convolution and its norm; `both` reads the convolution behind the norm's back, too."""

    def __init__(self, both: bool) -> None:
        super().__init__()
        self.conv, self.norm, self.both = nn.Conv2d(3, 4, 3), norm(), both

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        made = self.conv(pixels)
        return torch.relu(self.norm(made)) + (made if self.both else 0)


def fold(net: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """What it gives before and after."""
    net.eval()
    with torch.inference_mode():
        before = net(PIXELS)
        fold_batch_norms(net, lambda: net(PIXELS[:1]))
        return before, net(PIXELS)


def test_a_norm_behind_a_convolution_is_folded_into_it() -> None:
    net = Net(both=False)
    before, after = fold(net)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in net.modules())
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-5)


def test_a_convolution_that_something_else_reads_is_left_as_it_is() -> None:
    net = Net(both=True)
    before, after = fold(net)
    assert isinstance(net.norm, nn.BatchNorm2d)
    assert torch.equal(after, before)


def test_a_convolution_used_twice_is_left_as_it_is() -> None:
    shared = nn.Conv2d(4, 4, 3, padding=1)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), shared, norm(), shared, norm())
    before, after = fold(net)
    assert sum(isinstance(module, nn.BatchNorm2d) for module in net.modules()) == 2
    assert torch.equal(after, before)


@pytest.mark.parametrize(
    ("conv", "found"),
    [
        (nn.Conv1d(8, 8, 8), torch.float32),
        (nn.Conv1d(64, 64, 16, groups=16), torch.float32),
        (nn.Conv2d(8, 8, (1, 8)), torch.float32),
        (nn.Conv1d(64, 64, 8), torch.bfloat16),
        (nn.Conv2d(3, 8, 16), torch.bfloat16),
        (nn.Conv2d(16, 8, 3), torch.bfloat16),
    ],
    ids=str,
)
def test_few_channels_under_wide_kernels_are_not_computed_in_bf16(conv: nn.Module, found: torch.dtype) -> None:
    keep_exact(conv, "cpu", "bf16")
    shape = (20,) * (conv.weight.ndim - 2)
    with inference("cpu", "bf16"):
        assert conv(torch.zeros(1, conv.in_channels, *shape)).dtype is found
