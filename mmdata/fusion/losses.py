"""Losses that torch does not have, and the balance between the losses of several tasks."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

SMALL = 1e-6
WARMEST, COLDEST = 1.0, 0.01  # the range that a temperature is learned in


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean of `values` where `mask`, zero when it is nowhere."""
    return torch.where(mask, values, 0).sum() / mask.sum().clamp(min=1)


def masked_bce(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy; a NaN of the target counts for nothing."""
    each = functional.binary_cross_entropy_with_logits(logits, target.nan_to_num(), reduction="none")
    return masked_mean(each, ~target.isnan())


class Tower(nn.Module):
    """One side of an alignment: residual MLPs, then unit vectors `(n, dim)` of the common space."""

    def __init__(self, dim_in: int, dim: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(dim_in),
                nn.Linear(dim_in, 2 * dim_in),
                nn.GELU(),
                nn.Dropout(dropout),
                nn.Linear(2 * dim_in, dim_in),
            )
            for _ in range(layers)
        )
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(dim_in, dim)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + block(x)
        return functional.normalize(self.out(self.dropout(x)), dim=-1)


class InfoNce(nn.Module):
    """Cross-entropy of the true pair among all of the batch, both ways; rows of one group are no negatives."""

    def __init__(self) -> None:
        super().__init__()
        self.log_temperature = nn.Parameter(torch.tensor(0.07).log())

    def forward(self, x: Tensor, y: Tensor, group: Tensor) -> Tensor:
        scores = x @ y.T / self.log_temperature.exp().clamp(COLDEST, WARMEST)
        own = torch.eye(len(x), dtype=torch.bool, device=x.device)
        scores = scores.masked_fill((group[:, None] == group) & ~own, -torch.inf)
        right = torch.arange(len(x), device=x.device)
        return (functional.cross_entropy(scores, right) + functional.cross_entropy(scores.T, right)) / 2


class SigLip(nn.Module):
    """A binary question for each pair of the batch: Zhai et al. 2023 (arXiv 2303.15343), their starting values."""

    def __init__(self) -> None:
        super().__init__()
        self.log_temperature = nn.Parameter(torch.tensor(0.1).log())
        self.bias = nn.Parameter(torch.tensor(-10.0))

    def forward(self, x: Tensor, y: Tensor, group: Tensor) -> Tensor:
        scores = x @ y.T / self.log_temperature.exp().clamp(COLDEST, WARMEST) + self.bias
        sign = torch.where(group[:, None] == group, 1.0, -1.0)
        return -functional.logsigmoid(sign * scores).sum() / len(x)


CONTRASTS: dict[str, type[nn.Module]] = {"infonce": InfoNce, "siglip": SigLip}


def fusemix(x: Tensor, y: Tensor, alpha: float) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs mixed with other pairs, both sides with the same share; each mixture is a group of its own."""
    other = torch.randperm(len(x), device=x.device)
    share = torch.distributions.Beta(alpha, alpha).sample((len(x), 1)).to(x.device)
    mixed = (share * side + (1 - share) * side[other] for side in (x, y))
    return *mixed, torch.arange(len(x), device=x.device)  # type: ignore[return-value]


class Balance(nn.Module):
    """One loss of several. `start` has the value of each before training.

    fixed: the weighted sum. ratio: each over its start. uncertainty: exp(-s) L + s with a learned s a task, which
    starts at log L (Kendall et al. 2018, arXiv 1705.07115; started at zero it follows the largest loss).
    """

    start: Tensor

    def __init__(self, kind: str, weights: Mapping[str, float], start: Mapping[str, float]) -> None:
        super().__init__()
        self.kind, self.weights = kind, dict(weights)
        self.names = sorted(start)
        values = torch.tensor([max(start[name], SMALL) for name in self.names])
        self.register_buffer("start", values)
        self.log_scale = nn.Parameter(values.log(), requires_grad=kind == "uncertainty")

    def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
        each = torch.stack([losses[name] for name in self.names])
        weights = torch.tensor([self.weights[name] for name in self.names], device=each.device)
        return (weights * BALANCES[self.kind](self, each)).sum()


BALANCES: dict[str, Callable[[Balance, Tensor], Tensor]] = {
    "ratio": lambda balance, each: each / balance.start,
    "uncertainty": lambda balance, each: each * (-balance.log_scale).exp() + balance.log_scale,
    "fixed": lambda balance, each: each,
}
