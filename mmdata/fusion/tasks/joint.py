"""The reconstruction terms of the joint loss."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mmdata.errors import ConfigError
from mmdata.fusion import losses
from mmdata.fusion.tasks.task import Context, Outputs, Resampled, State, encode_groups, learn_nothing, of_drawn_rows


class Reconstruct(nn.Module):
    """The joint loss: alpha ||v - M_v(z)||^2 for each input v, where z is the fused state and M_v a decoder.

    Targets are standardised and carry no gradient, the square is averaged over dimensions (so each term is 1 - R2),
    and only rows that have the input count. What modality dropout takes away is reconstructed from the others.
    """

    main = "r2"
    learn = staticmethod(learn_nothing)
    encode = staticmethod(encode_groups)

    def __init__(self, context: Context, alpha: Mapping[str, float]) -> None:
        super().__init__()
        unknown = sorted(alpha.keys() - context.inputs.keys())
        if unknown:
            raise ConfigError(f"alpha names {', '.join(unknown)}; the inputs are {', '.join(context.inputs)}")
        self.alpha = {name: weight for name, weight in sorted(alpha.items()) if weight}
        self.decoders = nn.ModuleDict(
            {
                name: nn.Sequential(
                    nn.Linear(context.dim, context.dim), nn.GELU(), nn.Linear(context.dim, context.inputs[name])
                )
                for name in self.alpha
            }
        )

    def loss(self, state: State, target: Tensor) -> Tensor:
        total = state.fused.sum() * 0
        for name, weight in self.alpha.items():
            error = (self.decoders[name](state.fused) - state.standard[name].detach()) ** 2
            total = total + weight * losses.masked_mean(error.mean(1), state.present[name])
        return total

    def outputs(self, state: State) -> dict[str, Tensor]:
        """Squared error and squared length of each row: with all inputs, and without the one that is rebuilt."""
        found = {}
        for name in self.alpha:
            wanted, there = state.standard[name], state.present[name]
            without = state.fuse(state.parts, state.present | {name: torch.zeros_like(there)})
            for how, fused in (("all", state.fused), ("others", without)):
                error = ((self.decoders[name](fused) - wanted) ** 2).sum(1)
                found[f"{name} {how}"] = torch.where(there, error, torch.nan)
            found[f"{name} length"] = torch.where(there, (wanted**2).sum(1), torch.nan)
        return found

    def scores(self, outputs: Outputs, target: NDArray[Any]) -> dict[str, float]:
        found: dict[str, float] = {}
        for name in self.alpha:
            length = float(np.nansum(outputs[f"{name} length"]))
            if not length:  # no row has this input
                continue
            found |= {
                f"r2 {name} from {how}": 1 - float(np.nansum(outputs[f"{name} {how}"])) / length
                for how in ("all", "others")
            }
        whole = [value for key, value in found.items() if key.endswith("all")]
        return {"r2": float(np.mean(whole)), **found} if whole else {}

    def resampled(self, outputs: Outputs, target: NDArray[Any]) -> Resampled:
        return of_drawn_rows(self.scores, self.main, outputs, target)

    def columns(self, outputs: Outputs) -> dict[str, pa.Array]:
        return {}
