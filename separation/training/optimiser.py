"""AdamW and its learning rate schedule."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR


@dataclass
class AdamW:
    """Settings of the optimiser and its learning rate, which rises linearly and falls along a cosine.

    Attributes:
        lr: highest learning rate.
        weight_decay: of matrices and kernels; vectors (norms, biases) are not decayed.
        warmup: steps until the rate is highest; below 1, a share of all steps.
        betas: decay rates of the moments.
        last: final learning rate as a share of `lr`; 1 keeps the rate constant after the warm-up.
        points: pairs (step, share of `lr`) between which the rate is interpolated linearly; they replace the warm-up
            and the cosine.
        amsgrad: use the AMSGrad variant.
        tagger: learning rate of a tagger within the network as a share of `lr`; it is not decayed.
    """

    lr: float = 1e-3
    weight_decay: float = 0.02
    warmup: float = 200
    betas: tuple[float, float] = (0.9, 0.98)
    last: float = 0.01
    points: list[tuple[int, float]] | None = None
    amsgrad: bool = False
    tagger: float = 0.05

    def factor(self, step: int, steps: int) -> float:
        """Learning rate at `step` of a training of `steps` steps, as a share of `lr`."""
        if self.points is not None:
            steps_at, shares = zip(*sorted(self.points), strict=True)
            return float(np.interp(step, steps_at, shares))
        warmup = self.warmup if self.warmup >= 1 else self.warmup * steps
        if step < warmup:
            return min(1.0, (step + 1) / warmup)
        progress = min(1.0, (step - warmup) / max(1, steps - warmup))
        return self.last + (1 - self.last) * 0.5 * (1 + math.cos(math.pi * progress))

    def configure(self, module: nn.Module, steps: int) -> dict[str, Any]:
        """Optimiser and scheduler of a training of `steps` steps, as `configure_optimizers` returns them."""
        named = [(f".{name}", p) for name, p in module.named_parameters() if p.requires_grad]
        parameters = [p for name, p in named if ".tagger." not in name]
        groups: list[dict[str, Any]] = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": self.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        if tagger := [p for name, p in named if ".tagger." in name]:
            groups.append({"params": tagger, "weight_decay": 0.0, "lr": self.lr * self.tagger})
        optimiser = torch.optim.AdamW(groups, lr=self.lr, betas=self.betas, amsgrad=self.amsgrad)
        scheduler = LambdaLR(optimiser, lambda step: self.factor(step, steps))
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
