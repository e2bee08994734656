"""What every separator network offers."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ConditionedModel(nn.Module):
    """A network that takes the sound named by a condition out of a mixture.

    Attributes:
        sample_rate: rate the network works at, Hz.
        condition_dim: length of the condition vectors.
        stride: a segment that starts at a multiple of this many samples is computed on the whole file's grid.
        context: samples on either side that can change an output sample.
        segment_seconds: length of the segments that long recordings are cut into.
        grid_seconds: segments start at multiples of this many seconds, to lie on the network's grid.
        input_level: the level (`level.Level`) that mixtures are brought to before they are given to it.
        estimates_presence: whether its second output says how probably a query sounds at all.
        hears: whether `hear` tells presence without separating.
        published_otherwise: whether it was published with another inference than this package's.
        faithful: compute that: on the whole recording as it is, without this package's segments and levels.
    """

    sample_rate: int
    condition_dim: int
    stride: int = 1
    context: int = 0
    segment_seconds: int = 24
    grid_seconds: int = 1
    input_level: float = 1.0
    estimates_presence: bool = True
    hears: bool = False
    published_otherwise: bool = False
    faithful: bool = False

    def forward(self, mixture: Tensor, condition: Tensor) -> Tensor:
        """Mixture (batch, channels, time) and condition (batch, dim) to target (batch, channels, time)."""
        targets, _ = self.separate(mixture, condition[:, None])
        return targets[:, 0]

    def separate(self, mixture: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """Several queries on one mixture.

        Args:
            mixture: (batch, channels, time).
            conditions: (batch, queries, dim).

        Returns:
            targets (batch, queries, channels, time) and the presence logit over time (batch, queries, frames).
        """
        raise NotImplementedError

    def hear(self, mixture: Tensor, conditions: Tensor) -> Tensor:
        """Only the presence logits (batch, queries, frames) of `separate`, a frame each `stride` samples.

        Only networks that say so in `hears` have it.
        """
        raise NotImplementedError


def at_least_single(x: Tensor) -> Tensor:
    """x in single precision where autocast has computed less: there are no complex numbers of bfloat16."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
