"""Optimiser and learning rate shared by the objectives."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR


@dataclass
class AdamW:
    """AdamW whose rate rises for `warmup` steps and then falls along a cosine.

    lr: highest rate. weight_decay: of matrices and kernels; vectors (norms, biases) are not decayed. last: the rate's
    end as a share of its height; 1 keeps it up. points: instead of warm-up and cosine, pairs of a step and the rate's
    share of its height there, with straight lines between them. amsgrad: the rate never rises for a parameter again.
    """

    lr: float = 1e-3
    weight_decay: float = 0.02
    warmup: int = 200
    betas: tuple[float, float] = (0.9, 0.98)
    last: float = 0.01
    points: list[tuple[int, float]] | None = None
    amsgrad: bool = False


def along(points: list[tuple[int, float]], step: int) -> float:
    """The height at `step` of straight lines through (step, height) points; level before the first, after the last."""
    steps, heights = zip(*sorted(points), strict=True)
    right = bisect_right(steps, step)
    if right in (0, len(steps)):
        return heights[0] if right == 0 else heights[-1]
    share = (step - steps[right - 1]) / (steps[right] - steps[right - 1])
    return heights[right - 1] + share * (heights[right] - heights[right - 1])


def adamw_cosine(module: nn.Module, settings: AdamW, steps: int) -> dict[str, Any]:
    """The optimiser and schedule of a training of `steps` steps, as Lightning takes them."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=settings.lr, betas=settings.betas, amsgrad=settings.amsgrad)

    def factor(step: int) -> float:
        if settings.points is not None:
            return along(settings.points, step)
        if step < settings.warmup:
            return (step + 1) / settings.warmup
        progress = min(1.0, (step - settings.warmup) / max(1, steps - settings.warmup))
        return settings.last + (1 - settings.last) * 0.5 * (1 + math.cos(math.pi * progress))

    return {"optimizer": optimiser, "lr_scheduler": {"scheduler": LambdaLR(optimiser, factor), "interval": "step"}}
