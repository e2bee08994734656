"""Noise invariant training, CLIPSep-NIT (Dong et al., 2023): queries from videos that also contain other sounds.

Two noise masks take up what no query explains. They are used in training only, not in inference. As their share of the
loss depends on the settings, runs are compared by SDRi.

At the published start all masks are close to one half, at 0.48 to 0.52 by the seed (12 seeds; 0.01 deviation within a
batch). Where the sum of a target mask and a noise mask exceeds 1, it is clamped and has no gradient: between 0.5 and
97 % of the points. There only the bound on the noise masks lowers them until the sums are free. Without that bound, a
warm-up with the plain loss has to separate the masks first.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from separation.encoders.base import QueryEncoder
from separation.models.base import ConditionedModel
from separation.training.losses import noise_invariant_bce
from separation.training.objectives.supervised import Loss, Supervised

HEADS = 2


class NoiseInvariant(Supervised):
    """Trains a separator with two noise heads on mixtures of two clips, both of which are queried.

    Args:
        model: the separator to train, with noise heads.
        encoder: computes the conditions.
        loss: of masks without noise heads, in the warm-up; only "binary_mask".
        noise_weight: weight of the bound on the noise masks.
        gamma: mean of the sum of both noise masks up to which they cost nothing.
        warmup: steps with the plain loss, before the noise heads are used.
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
        super().__init__(model, encoder, loss=loss, **common)
        self.noise_weight, self.gamma, self.warmup = noise_weight, gamma, warmup
        heads: Any = getattr(self.model, "pit_nets", ())
        if len(heads) != HEADS:
            raise ValueError(f"noise invariant training needs a model with {HEADS} noise heads, not {len(heads)}")
        if loss != "binary_mask" or "none" in self.queries:
            raise ValueError('noise invariant training needs queries and the loss "binary_mask"')
        if not (noise_weight > 0 or warmup > 0):
            raise ValueError("with noise_weight 0 and no warm-up, sums that are clamped at the start have no gradient")

    def mask_loss(self, sources: Tensor, conditions: Tensor) -> Tensor:
        """Mean loss of mixtures (batch, 2, time) plus the weighted excess of the noise masks over their bound."""
        if sources.shape[1] != HEADS or conditions.shape[1] != HEADS:
            raise ValueError(f"noise invariant training mixes {HEADS} clips and queries both")
        features, truth, weight = self.mask_targets(sources)
        model: Any = self.model
        targets, noise = self.predict_masks(model.masks_with_noise, features, conditions)
        with torch.autocast(self.device.type, enabled=False):
            if self.global_step < self.warmup:
                # DDP waits for a gradient of every weight, so the noise heads take part with nothing.
                return self.compare_masks(targets, truth, weight).mean() + 0 * noise.mean()
            self.log("train/noise", noise.detach().sum(1).mean(), sync_dist=True)
            bce = noise_invariant_bce(targets, noise, truth, weight).mean()
            return bce + self.noise_weight * self.noise_excess(noise)

    def noise_excess(self, noise: Tensor) -> Tensor:
        """Excess of the mean of P_1 + P_2 over gamma, at least 0; the mean goes over the batches of all devices.

        Its gradient is that of this device's part. DDP averages the parts to the gradient of the whole.

        Args:
            noise: noise masks P (batch, 2, rows, frames).
        """
        own = noise.sum(1).mean()
        return F.relu(own + (self.gather(own.detach()).mean() - own.detach()) - self.gamma)
