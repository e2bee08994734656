"""Feature-wise linear modulation: a condition scales and shifts each channel (Perez et al., 2018)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class FiLM(nn.Module):
    """x (batch, channels, ...) -> x * (1 + scale(condition)) + shift(condition)."""

    def __init__(self, condition_dim: int, channels: int) -> None:
        super().__init__()
        self.project = nn.Linear(condition_dim, 2 * channels)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.project(condition).to(x.dtype)[:, :, None, None].chunk(2, dim=1)
        return torch.addcmul(shift, x, 1 + scale)
