"""Learning rates that change at given steps, as the published systems have them."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR


@dataclass
class Staircase:
    """Adam whose rate is `lr` times a factor that changes at given steps.

    lr: rate. weight_decay: on all parameters, apart from the gradient when `decoupled` (AdamW). factors: the first
    holds from the start, each further one from its step in `at` on.
    """

    lr: float = 1e-3
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    amsgrad: bool = False
    decoupled: bool = True
    at: list[int] = field(default_factory=list)
    factors: list[float] = field(default_factory=lambda: [1.0])

    def __post_init__(self) -> None:
        if len(self.factors) != len(self.at) + 1 or self.at != sorted(self.at):
            raise ValueError(f"{len(self.at)} rising steps have {len(self.at) + 1} factors, not {len(self.factors)}")

    def factor(self, step: int) -> float:
        """What the rate is multiplied with at a step."""
        return self.factors[bisect_right(self.at, step)]


def adam_staircase(module: nn.Module, settings: Staircase) -> dict[str, Any]:
    """The optimiser and its schedule, as Lightning takes them."""
    kind = torch.optim.AdamW if settings.decoupled else torch.optim.Adam
    optimiser = kind(
        [parameter for parameter in module.parameters() if parameter.requires_grad],
        lr=settings.lr,
        betas=settings.betas,
        weight_decay=settings.weight_decay,
        amsgrad=settings.amsgrad,
    )
    return {
        "optimizer": optimiser,
        "lr_scheduler": {"scheduler": LambdaLR(optimiser, settings.factor), "interval": "step"},
    }
