"""What the other devices of a training hold, for losses in which every item is compared with every other one."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def several() -> bool:
    """Whether more than one device trains."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


class Gather(torch.autograd.Function):
    """All devices' tensors one after another; a gradient goes back to the device it belongs to."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        """Own (n, ...) of equal shape everywhere to (devices * n, ...)."""
        parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, own.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """Every device's loss depends on every device's items: the gradients are added up."""
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        return gradient.chunk(dist.get_world_size())[dist.get_rank()]


def gathered_rows(own: Tensor) -> Tensor:
    """The rows (n, ...) of all devices, those of device 0 first; with one device, its own.

    A loss that averages over own rows only, with the gathered ones as columns, has on average over the devices (DDP
    averages gradients) the value and gradient of one device with the whole batch.
    """
    return Gather.apply(own) if several() else own  # type: ignore[no-untyped-call]


def gathered_texts(own: list[str]) -> list[str]:
    """The texts of all devices, in the same order."""
    if not several():
        return own
    parts: list[list[str]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(parts, own)
    return [text for part in parts for text in part]


def first_row(rows: int) -> int:
    """Where this device's `rows` begin among the gathered ones."""
    return dist.get_rank() * rows if several() else 0
