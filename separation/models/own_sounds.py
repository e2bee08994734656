"""A network that a user has taught new sounds: queries for those use adapted weights, all others the base as it is."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from separation.models.base import ConditionedModel, Estimate

ROUTED = 0.95
"""Cosine to the condition of a new sound from which the adapted weights are used. A text for it has that very condition
(`encoders.own_names`), but for a mean over several forms of a query."""


class LowRank(nn.Module):
    """Parametrization of a matrix or kernel: its own value plus the product of two small matrices, zero at first.

    Args:
        weight: (outputs, ...).
        rank: of the product.
    """

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        outputs, inputs = weight.flatten(1).shape
        self.left = nn.Parameter(torch.zeros(outputs, rank))
        self.right = nn.Parameter(torch.randn(rank, inputs) / inputs**0.5)

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (self.left @ self.right).view_as(weight)


class OwnSoundsNetwork(ConditionedModel):
    """Two networks of one kind, of which the condition of each query chooses one.

    Args:
        base: for all sounds but the new ones, whose estimates therefore do not change.
        adapted: for the new ones.
        vectors: conditions of the new sounds (sounds, dim), of unit length.
    """

    vectors: Tensor

    def __init__(self, base: ConditionedModel, adapted: ConditionedModel, vectors: Tensor) -> None:
        super().__init__()
        self.base, self.adapted = base, adapted
        self.register_buffer("vectors", vectors)
        for name in set(ConditionedModel.__annotations__) - {"faithful"}:
            setattr(self, name, getattr(base, name))

    def fold_norms(self) -> None:
        """See `ConditionedModel.fold_norms`."""
        self.base.fold_norms()
        self.adapted.fold_norms()

    def separate(self, mixture: Tensor, conditions: Tensor) -> Estimate:
        """See `ConditionedModel.separate`."""
        routed = self.is_routed(conditions)
        if routed.all() or not routed.any():
            return (self.adapted if routed.any() else self.base).separate(mixture, conditions)
        order = torch.cat([(~routed).nonzero()[:, 0], routed.nonzero()[:, 0]]).argsort()
        first, second = (
            network.separate(mixture, conditions[:, chosen])
            for network, chosen in ((self.base, ~routed), (self.adapted, routed))
        )
        high = None
        if first.high_gain is not None and second.high_gain is not None:
            high = torch.cat([first.high_gain, second.high_gain], 1)[:, order]
        targets, logits = (torch.cat(pair, 1)[:, order] for pair in zip(first[:2], second[:2], strict=True))
        return Estimate(targets, logits, first.tags, high)

    def score_presence(self, mixture: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor | None]:
        """See `ConditionedModel.score_presence`."""
        logits, tags = self.base.score_presence(mixture, conditions)
        routed = self.is_routed(conditions)
        if routed.any():
            logits = logits.clone()
            logits[:, routed] = self.adapted.score_presence(mixture, conditions[:, routed])[0]
        return logits, tags

    def is_routed(self, conditions: Tensor) -> Tensor:
        """Which queries of conditions (batch, queries, dim), the same in a batch, are for new sounds (queries,)."""
        return (conditions[0] @ self.vectors.T).amax(-1) >= ROUTED
