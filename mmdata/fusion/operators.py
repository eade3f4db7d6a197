"""Fusion operators: the tokens of every input to one state `(n, dim)`. One table, one contract.

An operator takes a list with one `(tokens (n, t, dim), mask (n, t) bool)` an input; every row has at least one token
of every input, since a missing one is a learned embedding by then (`mmdata.fusion.model.Stem`). A pooled embedding
is one token. Operators without attention take the mean of an input's tokens.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

Tokens = tuple[Tensor, Tensor]
HEADS = 4
LATENTS = 8
RANK = 8


class Operator(Protocol):
    """What every operator is; `inputs` is how many there are."""

    def __init__(self, inputs: int, dim: int, layers: int, dropout: float) -> None: ...

    def __call__(self, parts: Sequence[Tokens]) -> Tensor:
        """The fused state, `(n, dim)`."""


def mean_token(tokens: Tensor, mask: Tensor) -> Tensor:
    """The mean of the tokens that are there, `(n, dim)`; zero where there is none."""
    kept = torch.where(mask[..., None], tokens, 0)
    return kept.sum(1) / mask.sum(1, keepdim=True).clamp(min=1)


def _pooled(parts: Sequence[Tokens]) -> Tensor:
    return torch.stack([mean_token(*part) for part in parts], dim=1)  # (n, inputs, dim)


class LinearFusion(nn.Module):
    """Concatenation and a linear map: the honest baseline, no interaction between inputs."""

    def __init__(self, inputs: int, dim: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.out = nn.Linear(inputs * dim, dim)

    def forward(self, parts: Sequence[Tokens]) -> Tensor:
        return self.out(_pooled(parts).flatten(1))  # type: ignore[no-any-return]


class ConcatMlp(nn.Module):
    """Concatenation and an MLP."""

    def __init__(self, inputs: int, dim: int, layers: int, dropout: float) -> None:
        super().__init__()
        steps: list[nn.Module] = []
        for layer in range(layers):
            steps += [nn.Linear(dim if layer else inputs * dim, dim), nn.GELU(), nn.Dropout(dropout)]
        self.steps = nn.Sequential(*steps)

    def forward(self, parts: Sequence[Tokens]) -> Tensor:
        return self.steps(_pooled(parts).flatten(1))  # type: ignore[no-any-return]


class Gmu(nn.Module):
    """Gated multimodal unit, Arevalo et al. 2017 (arXiv 1702.01992): a sum of inputs, gated by all of them."""

    def __init__(self, inputs: int, dim: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.values = nn.ModuleList(nn.Linear(dim, dim) for _ in range(inputs))
        self.gates = nn.Linear(inputs * dim, inputs * dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, parts: Sequence[Tokens]) -> Tensor:
        pooled = _pooled(parts)
        values = torch.stack([value(pooled[:, i]) for i, value in enumerate(self.values)], dim=1).tanh()
        gates = self.gates(pooled.flatten(1)).sigmoid().view_as(values)
        return self.dropout((gates * values).sum(1))  # type: ignore[no-any-return]


class Film(nn.Module):
    """Feature-wise linear modulation, Perez et al. 2018 (arXiv 1709.07871): each input scaled and shifted by all."""

    def __init__(self, inputs: int, dim: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.modulation = nn.Linear(inputs * dim, 2 * inputs * dim)
        self.out = nn.Sequential(nn.GELU(), nn.Dropout(dropout), nn.Linear(dim, dim), nn.GELU())

    def forward(self, parts: Sequence[Tokens]) -> Tensor:
        pooled = _pooled(parts)
        scale, shift = self.modulation(pooled.flatten(1)).view(len(pooled), 2, *pooled.shape[1:]).unbind(1)
        return self.out((pooled * (1 + scale) + shift).sum(1))  # type: ignore[no-any-return]


class Lmf(nn.Module):
    """Low-rank multimodal fusion, Liu et al. 2018 (arXiv 1806.00064): a product over inputs. For two of them."""

    def __init__(self, inputs: int, dim: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.factors = nn.ModuleList(nn.Linear(dim, RANK * dim) for _ in range(inputs))
        self.weights = nn.Parameter(torch.full((RANK, 1), RANK**-0.5))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.dropout = nn.Dropout(dropout)

    def forward(self, parts: Sequence[Tokens]) -> Tensor:
        pooled = _pooled(parts)
        products = torch.ones((), device=pooled.device)
        for i, factor in enumerate(self.factors):
            products = products * factor(pooled[:, i]).view(len(pooled), RANK, -1)
        return self.dropout((products * self.weights).sum(1) + self.bias)  # type: ignore[no-any-return]


class _Block(nn.Module):
    """Pre-norm attention of `x` to `context`, then an MLP. Queries and keys have no bias: a key's has no effect."""

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.query, self.keys_values = nn.Linear(dim, dim, bias=False), nn.Linear(dim, 2 * dim, bias=False)
        self.out = nn.Linear(dim, dim)
        self.norm, self.context_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        query = self.query(self.norm(x)).unflatten(-1, (HEADS, -1)).transpose(1, 2)
        key, value = (
            self.keys_values(self.context_norm(context)).unflatten(-1, (2 * HEADS, -1)).transpose(1, 2).chunk(2, dim=1)
        )
        found = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None])
        x = x + self.dropout(self.out(found.transpose(1, 2).flatten(2)))
        return x + self.dropout(self.mlp(x))  # type: ignore[no-any-return]


class Transformer(nn.Module):
    """The tokens of all inputs and one of its own attend to each other; its own is the state."""

    def __init__(self, inputs: int, dim: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.kinds = nn.Parameter(torch.randn(inputs, dim) * 0.02)
        self.state = nn.Parameter(torch.randn(dim) * 0.02)
        self.blocks = nn.ModuleList(_Block(dim, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)

    def forward(self, parts: Sequence[Tokens]) -> Tensor:
        tokens, mask = _together(parts, self.kinds)
        state = self.state.expand(len(tokens), 1, -1)
        x = torch.cat([state, tokens], dim=1)
        mask = torch.cat([torch.ones_like(mask[:, :1]), mask], dim=1)
        for block in self.blocks:
            x = block(x, x, mask)
        return self.norm(x[:, 0])  # type: ignore[no-any-return]


class Bottleneck(nn.Module):
    """A few latents attend to the tokens of all inputs (Jaegle et al. 2021, arXiv 2103.03206): for many tokens."""

    def __init__(self, inputs: int, dim: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.kinds = nn.Parameter(torch.randn(inputs, dim) * 0.02)
        self.latents = nn.Parameter(torch.randn(LATENTS, dim))
        self.blocks = nn.ModuleList(_Block(dim, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)

    def forward(self, parts: Sequence[Tokens]) -> Tensor:
        tokens, mask = _together(parts, self.kinds)
        x = self.latents.expand(len(tokens), -1, -1)
        for block in self.blocks:
            x = block(x, tokens, mask)
        return self.norm(x).mean(1)  # type: ignore[no-any-return]


def _together(parts: Sequence[Tokens], kinds: Tensor) -> Tokens:
    tokens = torch.cat([tokens + kind for (tokens, _), kind in zip(parts, kinds, strict=True)], dim=1)
    return tokens, torch.cat([mask for _, mask in parts], dim=1)


OPERATORS: dict[str, type[nn.Module]] = {
    "linear": LinearFusion,
    "concat_mlp": ConcatMlp,
    "gmu": Gmu,
    "film": Film,
    "transformer": Transformer,
    "bottleneck": Bottleneck,
    "lmf": Lmf,
}


def default_operator(inputs: int, tokens: bool) -> str:
    """What is used when nothing is asked for."""
    return "transformer" if tokens or inputs > 3 else "concat_mlp"
