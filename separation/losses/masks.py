"""CLIPSep's loss of masks: cross-entropy with the true masks, weighed by the mixture's level.

Zhao et al., "The Sound of Pixels", 2018; Dong et al., "CLIPSep", 2023. Magnitudes are those of each source and of the
mixture, resampled to the rows on which masks live.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

LEAST, MOST = 1e-3, 10.0  # weight of a point
TINY = 1e-10


def binary_masks(sources: Tensor, mixture: Tensor) -> Tensor:
    """Where a source has more than half of the mixture's magnitude; of two sources both may have it, or neither.

    Args:
        sources: magnitudes (batch, sources, rows, frames).
        mixture: magnitude (batch, rows, frames).

    Returns:
        ones and zeros (batch, sources, rows, frames).
    """
    return (sources > 0.5 * mixture[:, None]).to(sources.dtype)


def ratio_masks(sources: Tensor) -> Tensor:
    """Each source's share of the sum of all sources' magnitudes, (batch, sources, rows, frames) to the same.

    The published code sums over the batch instead; this is what its paper describes.
    """
    return (sources / sources.sum(1, keepdim=True).clamp_min(TINY)).clamp(0, 1)


def loudness_weight(mixture: Tensor) -> Tensor:
    """Weight of every point of a mixture's magnitude (batch, rows, frames): ln(1 + magnitude), within bounds."""
    return torch.log1p(mixture).clamp(LEAST, MOST)


def weighted_bce(mask: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """Cross-entropy times weight, mean over rows and frames: (..., rows, frames) to (...).

    The mean is plain, not divided by the sum of weights. A mask of exactly 0 or 1 costs 100 at most.
    """
    return (weight * F.binary_cross_entropy(mask, truth, reduction="none")).mean((-1, -2))


def best_order(pairs: Tensor) -> Tensor:
    """Permutation-invariant mean for two: losses of every (estimate, truth) (batch, 2, 2) to (batch,).

    Yu et al., "Permutation invariant training of deep models", 2017.

    Raises:
        ValueError: there are not two of each.
    """
    if pairs.shape[-2:] != (2, 2):
        raise ValueError(f"the best order is found among two sources, not {tuple(pairs.shape[-2:])}")
    straight = (pairs[:, 0, 0] + pairs[:, 1, 1]) / 2
    crossed = (pairs[:, 0, 1] + pairs[:, 1, 0]) / 2
    return torch.minimum(straight, crossed)
