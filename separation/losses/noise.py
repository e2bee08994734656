"""Noise invariant training (Dong et al., "CLIPSep", 2023): two more masks take up what no query explains.

With target masks T_1, T_2 and noise masks P_1, P_2 the sum min(1, T_n + P_j) is compared with the true mask of source
n, for the better of the two assignments of j to n. So a sound that does not belong to a training clip's query may stay
out of T_n. A regulariser keeps the noise masks' mean within gamma, or they would take everything.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from separation.losses.masks import best_order, weighted_bce


def combined_masks(targets: Tensor, noise: Tensor) -> Tensor:
    """min(1, T_n + P_j): (batch, n, rows, frames) and (batch, j, rows, frames) to (batch, n, j, rows, frames).

    Where the sum is clamped it has no gradient.
    """
    return (targets[:, :, None] + noise[:, None]).clamp(max=1)


def noise_invariant_bce(targets: Tensor, noise: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """The better assignment of noise masks to sources, for each item.

    Args:
        targets: T (batch, 2, rows, frames).
        noise: P (batch, 2, rows, frames).
        truth: true masks (batch, 2, rows, frames).
        weight: (batch, rows, frames).

    Returns:
        weighted cross-entropy (batch,).
    """
    combined = combined_masks(targets, noise)
    wanted = truth[:, :, None].expand_as(combined)
    return best_order(weighted_bce(combined, wanted, weight[:, None, None]))


def noise_excess(noise: Tensor, gamma: float) -> Tensor:
    """How far the mean of P_1 + P_2 over the whole batch lies above gamma, at least 0.

    In a training on several devices the mean is that of all their batches. Its gradient is that of this device's part:
    averaged over devices, as Lightning's DDP does, these add up to the gradient of the whole.

    Args:
        noise: P (batch, 2, rows, frames).
        gamma: bound.
    """
    own = noise.sum(1).mean()
    return F.relu(own + (mean_of_all(own.detach()) - own.detach()) - gamma)


def mean_of_all(value: Tensor) -> Tensor:
    """The mean over all devices of a number without gradient."""
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return value
    total = value.clone()
    torch.distributed.all_reduce(total)
    return total / torch.distributed.get_world_size()
