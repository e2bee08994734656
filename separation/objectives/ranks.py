"""What several processes that train together share: scores, and the counts that their losses are divided by."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def world() -> int:
    """How many processes train together."""
    together = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if together else 1


def gathered(items: list[Any]) -> list[Any]:
    """All ranks' items, rank after rank."""
    if world() == 1:
        return items
    parts: list[list[Any]] = [[]] * world()
    torch.distributed.all_gather_object(parts, items)
    return [item for part in parts for item in part]


def per_rank(count: Tensor) -> Tensor:
    """Mean of a count over the ranks.

    DDP averages the ranks' gradients. A sum divided by this instead of the rank's own count gives the gradient of the
    mean over all ranks' items, however they are spread.
    """
    count = count.detach().float().clone()
    if world() > 1:
        torch.distributed.all_reduce(count)
    return count / world()
