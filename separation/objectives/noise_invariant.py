"""Noise invariant training, CLIPSep-NIT (Dong et al., 2023): queries from videos in which other things sound too.

The losses are in `losses/noise.py`. At the start all masks are about 0.516, so every sum of a target's and a noise mask
is clamped at 1 and has no gradient: only the bound on the noise masks pulls them down until the sums are free. Where
that bound is off, a warm-up on the plain loss has to bring the masks apart first.

The noise heads are for training only: `separate` does not use them. As their share of the loss is a matter of settings,
runs are compared by SDRi.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from separation.encoders.base import QueryEncoder
from separation.losses.noise import noise_excess, noise_invariant_bce
from separation.models.base import ConditionedModel
from separation.objectives.supervised import Loss, Supervised

HEADS = 2


class NoiseInvariant(Supervised):
    """Trains a separator with two noise heads on mixtures of two clips, both of which are asked for.

    Args:
        model: the separator that is trained, with noise heads.
        encoder: gives the conditions.
        loss: of masks without noise heads, in the warm-up; "binary_mask" is the only one.
        noise_weight: of the bound on the noise masks.
        gamma: what the mean of the sum of both noise masks may be at no cost.
        warmup: steps with the plain loss, before the noise heads enter.
        common: see `Supervised`.

    Raises:
        ValueError: the settings contradict each other.
    """

    def __init__(
        self,
        model: ConditionedModel,
        encoder: QueryEncoder,
        loss: Loss = "binary_mask",
        noise_weight: float = 0.1,
        gamma: float = 0.25,
        warmup: int = 0,
        **common: Any,
    ) -> None:
        self.noise_weight, self.gamma, self.warmup = noise_weight, gamma, warmup
        super().__init__(model, encoder, loss=loss, **common)

    def check(self) -> None:
        """See `Supervised.check`."""
        super().check()
        heads: Any = getattr(self.model, "pit_nets", ())
        if len(heads) != HEADS:
            raise ValueError(f"noise invariant training needs a model with {HEADS} noise heads, not {len(heads)}")
        if self.loss != "binary_mask" or "none" in self.queries:
            raise ValueError('noise invariant training has queries and the loss "binary_mask"')
        if not (self.noise_weight > 0 or self.warmup > 0):
            raise ValueError("with noise_weight 0 and no warm-up nothing has a gradient at the start")

    def of_masks(self, sources: Tensor, conditions: Tensor) -> Tensor:
        """Mean loss of the mixtures (batch, 2, time), and what the noise masks exceed their bound by."""
        if sources.shape[1] != HEADS or conditions.shape[1] != HEADS:
            raise ValueError(f"noise invariant training mixes {HEADS} clips and asks for both")
        features, truth, weight = self.views(sources)
        model: Any = self.model
        targets, noise = self.on_frames(model.masks_with_noise, features, conditions)
        with torch.autocast(self.device.type, enabled=False):
            if self.global_step < self.warmup:
                # The noise heads take part with nothing: a training on several devices waits for every gradient.
                return self.compared(targets, truth, weight).mean() + 0 * noise.mean()
            excess = noise_excess(noise, self.gamma)
            self.log("train/noise", noise.detach().sum(1).mean(), sync_dist=True)
            return noise_invariant_bce(targets, noise, truth, weight).mean() + self.noise_weight * excess
