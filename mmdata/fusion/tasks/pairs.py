"""Tasks that learn from what belongs together: one space for several inputs, and whether two match."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import normalize

from mmdata.fusion import losses, metrics
from mmdata.fusion.tasks.task import (
    Context,
    Outputs,
    Resampled,
    State,
    encode_groups,
    learn_nothing,
    of_drawn_rows,
    of_means,
)

SHARES = (0.0, 0.5, 0.7, 1.0)  # weights of what inputs share before, against what is learned


def _weighted(rows: NDArray[np.floating], dim: int, factor: float) -> NDArray[np.floating]:
    """Unit rows whose columns from `dim` on have another weight."""
    turned = np.concatenate([rows[:, :dim], factor * rows[:, dim:]], axis=1)
    return np.asarray(turned / np.maximum(np.linalg.norm(turned, axis=1, keepdims=True), losses.SMALL))


def shared_width(facts: Mapping[str, Any]) -> int:
    """Dimensions of the space that inputs of an align task share before it learns; 0 where they do not."""
    return max((end - first for first, end in facts.get("shared", {}).values()), default=0)


class Align(nn.Module):
    """Brings inputs into one space: a tower an input, a contrastive loss a pair of inputs.

    `loss` is infonce (CLIP, Radford et al. 2021) or siglip (Zhai et al. 2023); `fusemix` is the parameter of the
    Beta distribution of FuseMix (Vouitsis et al. 2024, arXiv 2312.10144), 0 for none: both sides of a pair are mixed
    with those of another pair, with the same share. Inputs that hold vectors of one space already (two towers of CLIP)
    keep them beside what is learned, with a weight that validation chooses, as `mmdata align` does; no loss sees them,
    for what is learned would then fill their gaps on the training pairs and not elsewhere.
    """

    main = "mean R@10"
    learn = staticmethod(learn_nothing)
    encode = staticmethod(encode_groups)
    share: Tensor

    def __init__(
        self,
        context: Context,
        between: Sequence[str],
        loss: str = "infonce",
        dim: int = 128,
        layers: int = 0,
        fusemix: float = 1.0,
    ) -> None:
        super().__init__()
        self.between, self.fusemix, self.dim = sorted(between), fusemix, dim
        self.shared: dict[str, Sequence[int]] = context.facts.get("shared", {})
        self.width = shared_width(context.facts)
        if self.width:
            self.register_buffer("share", torch.tensor(SHARES[-1]))
        self.towers = nn.ModuleDict(
            {name: losses.Tower(context.dim, dim, layers, context.dropout) for name in self.between}
        )
        self.contrast = losses.CONTRASTS[loss]()

    def loss(self, state: State, target: Tensor) -> Tensor:
        total = state.fused.sum() * 0
        for one, other in combinations(self.between, 2):
            rows = torch.nonzero(state.present[one] & state.present[other])[:, 0]
            if len(rows) < 2:
                continue
            x, y, group = state.pooled(one)[rows], state.pooled(other)[rows], target[rows]
            if self.fusemix:
                x, y, group = losses.fusemix(x, y, self.fusemix)
            total = total + self.contrast(self.towers[one](x), self.towers[other](y), group)
        return total / len(list(combinations(self.between, 2)))

    def outputs(self, state: State) -> dict[str, Tensor]:
        found = {name: self.towers[name](state.pooled(name)) for name in self.between}
        if self.width:
            found = {name: self._beside(fitted, state, name) for name, fitted in found.items()}
        # a row that lacks an input has no place in the space
        return {name: torch.where(state.present[name][:, None], found[name], torch.nan) for name in self.between}

    def _beside(self, fitted: Tensor, state: State, name: str) -> Tensor:
        """What was learned of an input beside what it shares, which is zero where it shares nothing."""
        before = fitted.new_zeros(len(fitted), self.width)
        if name in self.shared:
            before = normalize(state.standard[name][:, slice(*self.shared[name])], dim=-1)
        return normalize(torch.cat([fitted, self.share * before], dim=1), dim=-1)

    def settle(self, outputs: Outputs, target: NDArray[Any]) -> None:
        """Choose the weight of what is shared from outputs of validation rows at the present weight."""
        if not self.width:
            return
        now = float(self.share)

        def found(share: float) -> float:
            turned = {name: _weighted(rows, self.dim, share / now) for name, rows in outputs.items()}
            return self.scores(turned, target).get("mean reciprocal rank", 0.0)

        self.share.fill_(max(SHARES, key=found))

    def scores(self, outputs: Outputs, target: NDArray[Any]) -> dict[str, float]:
        return metrics.alignment({name: outputs[name] for name in self.between if name in outputs}, target)

    def resampled(self, outputs: Outputs, target: NDArray[Any]) -> Resampled:
        return of_means(
            metrics.alignment_hits({name: outputs[name] for name in self.between if name in outputs}, target)
        )

    def columns(self, outputs: Outputs) -> dict[str, pa.Array]:
        return {}


class Match(nn.Module):
    """Whether two inputs belong together: true pairs against pairs mixed within the batch, on the fused state."""

    main = "auroc"
    learn = staticmethod(learn_nothing)
    encode = staticmethod(encode_groups)

    def __init__(self, context: Context, between: Sequence[str]) -> None:
        super().__init__()
        self.first, self.second = between
        self.out = nn.Linear(context.dim, 1)

    def _mixed(self, state: State, partner: Tensor) -> Tensor:
        tokens, mask = state.parts[self.second]
        parts = state.parts | {self.second: (tokens[partner], mask[partner])}
        return self.out(state.fuse(parts, state.present))[:, 0]  # type: ignore[no-any-return]

    def loss(self, state: State, target: Tensor) -> Tensor:
        both = state.present[self.first] & state.present[self.second]
        partner = torch.randperm(len(target), device=target.device)
        right = self._mixed(state, torch.arange(len(target), device=target.device))
        wrong = self._mixed(state, partner)
        usable = both & both[partner] & (target != target[partner])
        truth = torch.cat([torch.where(both, 1.0, torch.nan), torch.where(usable, 0.0, torch.nan)])
        return losses.masked_bce(torch.cat([right, wrong]), truth)

    def outputs(self, state: State) -> dict[str, Tensor]:
        own = torch.arange(len(state.fused), device=state.fused.device)
        first, second = state.present[self.first], state.present[self.second]
        return {
            name: torch.where(first & second[partner], self._mixed(state, partner).sigmoid(), torch.nan)
            for name, partner in (("probability", own), ("mixed", own.roll(1)))
        }

    def scores(self, outputs: Outputs, target: NDArray[Any]) -> dict[str, float]:
        return metrics.separation(outputs["probability"], outputs["mixed"])

    def resampled(self, outputs: Outputs, target: NDArray[Any]) -> Resampled:
        return of_drawn_rows(self.scores, self.main, outputs, target)

    def columns(self, outputs: Outputs) -> dict[str, pa.Array]:
        return {"probability": pa.array(outputs["probability"], from_pandas=True)}  # no number where one is missing
