"""Copies of batches to pinned memory and to devices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor


class Transferable:
    """A dataclass whose tensors are pinned by loaders and moved by Lightning, which look for these methods.

    Without them, loaders pin nothing, and Lightning walks through all nested lists, and pictures byte by byte.
    """

    def pin_memory(self) -> Any:
        """A copy in pinned memory."""
        return self.change_tensors(Tensor.pin_memory)

    def to(self, device: torch.device) -> Any:
        """A copy on a device; a GPU copies while the program goes on."""
        return self.change_tensors(lambda tensor: tensor.to(device, non_blocking=device.type == "cuda"))

    def change_tensors(self, change: Callable[[Tensor], Tensor]) -> Any:
        """A copy with changed tensors; the rest is shared."""
        batch: Any = self
        tensors = {name: value for name, value in vars(batch).items() if isinstance(value, Tensor)}
        return replace(batch, **{name: change(tensor) for name, tensor in tensors.items()})
