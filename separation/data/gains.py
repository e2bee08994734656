"""How loud the sources of a training mixture are, as the published systems choose it.

What is random is drawn with the mixture; the sources are brought to their levels in whole batches, on the device.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

FLOOR = 1e-10


class Gains:
    """What brings sources (sources, time) to their levels in the mixture, which is their sum.

    Attributes:
        as_recorded: the sources that it is given are at their recordings' own levels, and not with each clip's peak at
            one.
    """

    as_recorded = False

    def draw(self, sources: int, rng: np.random.Generator) -> Tensor:
        """What is random in the levels of one mixture of so many sources: (numbers,), float32."""
        raise NotImplementedError

    def applied(self, sources: Tensor, drawn: Tensor) -> Tensor:
        """Sources (..., sources, time) with what was drawn for their mixtures (..., numbers) to the same."""
        raise NotImplementedError

    def __call__(self, sources: Tensor, rng: np.random.Generator) -> Tensor:
        """One mixture's sources (sources, time) to the same."""
        return self.applied(sources, self.draw(len(sources), rng))


class RandomGains(Gains):
    """CLIPSep's: each source by a random factor, clipped to [-1, 1] and divided by the number of sources.

    It acts on the recordings' own levels: with every peak at one, half of the sources would be cut off at [-1, 1].

    Args:
        low, high: bounds of the factor.
        as_recorded: see `Gains`; false takes every clip with its peak at one.
    """

    def __init__(self, low: float = 0.5, high: float = 1.5, as_recorded: bool = True) -> None:
        self.low, self.high, self.as_recorded = low, high, as_recorded

    def draw(self, sources: int, rng: np.random.Generator) -> Tensor:
        """A factor for each source."""
        return torch.from_numpy(rng.uniform(self.low, self.high, sources)).float()

    def applied(self, sources: Tensor, drawn: Tensor) -> Tensor:
        """See `Gains`."""
        return (sources * drawn[..., None]).clamp(-1, 1) / sources.shape[-2]


class EnergyGains(Gains):
    """AudioSep's: the first source as it is, the others together at a random energy ratio to it.

    Each of the others is brought to the first one's energy and changed by a random number of dB; so is their sum. All
    is scaled down where the mixture's peak exceeds 1.

    Args:
        low, high: bounds of the change, dB.
        whole: draw whole numbers of dB, both bounds among them.
        peak: that a mixture which exceeds 1 is scaled to.
        least, most: bounds of the factor that equals energies.
        as_recorded: see `Gains`.
    """

    def __init__(
        self,
        low: float = -10.0,
        high: float = 10.0,
        whole: bool = True,
        peak: float = 0.9,
        least: float = 0.02,
        most: float = 50.0,
        as_recorded: bool = True,
    ) -> None:
        self.low, self.high, self.whole, self.peak = low, high, whole, peak
        self.least, self.most, self.as_recorded = least, most, as_recorded

    def decibels(self, rng: np.random.Generator) -> float:
        """A change of level."""
        return float(
            rng.integers(int(self.low), int(self.high) + 1) if self.whole else rng.uniform(self.low, self.high)
        )

    def draw(self, sources: int, rng: np.random.Generator) -> Tensor:
        """Changes of level, dB: of each source but the first, then of their sum."""
        return torch.tensor([self.decibels(rng) for _ in range(sources)])

    def rescaled(self, waves: Tensor, reference: Tensor, decibels: Tensor) -> Tensor:
        """Waves (..., waves, time) at the reference's energy (..., 1, time), then louder or quieter (..., waves)."""
        power, wanted = waves.square().mean(-1), reference.square().mean(-1).clamp_min(FLOOR)
        factor = 10 ** (decibels / 20) / (power / wanted).sqrt().clamp(self.least, self.most)
        return waves * factor[..., None]

    def applied(self, sources: Tensor, drawn: Tensor) -> Tensor:
        """See `Gains`."""
        first = sources[..., :1, :]
        others = self.rescaled(sources[..., 1:, :], first, drawn[..., :-1])
        background = others.sum(-2, keepdim=True)
        # One factor for all of them, so that they still add up to what their sum was scaled to.
        louder = self.rescaled(background, first, drawn[..., -1:]).norm(dim=-1, keepdim=True)
        factor = louder / background.norm(dim=-1, keepdim=True).clamp_min(FLOOR)  # (..., 1, 1)
        scaled = torch.cat([first, others * factor], dim=-2)
        top = scaled.sum(-2).abs().amax(-1)[..., None, None]
        return torch.where(top > 1, scaled * (self.peak / top.clamp_min(1)), scaled)
